"""Where prompts come from, one file a source; all are made before anything runs."""
