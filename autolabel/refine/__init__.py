"""Keep, change or drop, one idea a file."""
