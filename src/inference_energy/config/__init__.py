"""The configuration: one pydantic model a section."""
