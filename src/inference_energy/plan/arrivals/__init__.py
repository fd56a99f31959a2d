"""Arrival processes, one file each, drawn beforehand as offsets from the start of a cell."""
