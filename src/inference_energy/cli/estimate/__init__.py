"""`estimate`: energy without a run, and its sub-commands."""
