"""What decides when a cell's requests are sent: their arrivals, or the answers before them."""
