"""One file per outside system: connect, time out, classify errors."""
