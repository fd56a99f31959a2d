"""Load test of a running endpoint, from plan to summary: `inference-energy load-test` in Python."""
