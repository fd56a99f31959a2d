"""The calibrated energy roofline: its terms, its fit and its file."""
