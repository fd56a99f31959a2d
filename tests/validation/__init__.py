"""The pipeline against the virtual bench."""
