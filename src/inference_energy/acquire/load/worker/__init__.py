"""The processes that send a session's load, and the team of them."""
