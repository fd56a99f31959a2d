"""One request and its answer: the bytes sent, the transports, and the record of what came back."""
