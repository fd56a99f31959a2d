"""The model that is served, made ready before the server starts."""
