"""What touches the machine: the server, the power readings, the load, the session that ties them together."""
