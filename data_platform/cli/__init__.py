"""`data-platform ...`: one file per group of commands."""
