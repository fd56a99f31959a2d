"""`load-test`: the command, what it is told, and the processes it is made of."""
