"""A load test of a running endpoint: planned, sent and summed up; `inference-energy load-test` in Python."""
