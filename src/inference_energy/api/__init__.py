"""The Python API: what `from inference_energy import ...` offers, made of the functions behind the commands."""
