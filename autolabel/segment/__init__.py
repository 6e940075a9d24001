"""Questions to masks."""
