"""What really happens on the virtual node: batching, time, energy, heat, and who caused which joule."""
