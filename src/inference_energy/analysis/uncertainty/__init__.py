"""The uncertainty of figures: block bootstrap, sensor terms, and the budget that combines them."""
