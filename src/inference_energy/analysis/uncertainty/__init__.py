"""How far a figure may be off: block bootstrap, sensor terms, and the budget that combines them."""
