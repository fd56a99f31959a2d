"""The truth of the virtual node: batching, time, energy, heat, and the request that caused each joule."""
