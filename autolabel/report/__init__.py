"""Pages for people: one self-contained HTML file of a run, or of several side by side."""
