"""Presentation of results: the report, the power trace and the last lines of a run."""
