"""Sources of prompts; all prompts are made before anything runs."""
