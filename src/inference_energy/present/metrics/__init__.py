"""Presentation of the metric family: tables and figures of the report and the terminal."""
