"""Arrivals of a cell's requests: processes, traces and replayed schedules, as offsets from the cell's start."""
