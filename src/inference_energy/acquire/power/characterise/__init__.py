"""What a GPU's power sensors do: measured on the card itself, and kept as a profile that later runs cite."""
