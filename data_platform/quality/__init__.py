"""Whether a partition is what it should be: its rows by the catalogue's rules, its layers against each other."""
