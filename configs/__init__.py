"""The configuration tree: one folder a stage, one file a choice."""
