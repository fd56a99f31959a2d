"""Linear models of a window's energy, fitted over windows."""
