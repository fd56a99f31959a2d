"""Everything that acts on the machine: the server, the power readings, the load, and the session that joins them."""
