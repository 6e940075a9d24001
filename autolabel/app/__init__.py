"""The only place that composes with Hydra and knows everybody; one file a command."""
