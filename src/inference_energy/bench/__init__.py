"""The virtual bench: a simulated serving node whose true energy is known, seen through faithful sensors."""
