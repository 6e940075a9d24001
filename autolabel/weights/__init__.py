"""Names to verified local files."""
