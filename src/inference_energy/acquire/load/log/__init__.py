"""The crash-safe logs of the load's processes, and their merge."""
