"""The metric family: what a served token, request and right answer cost, one metric a file."""
