"""The two ways a command ends badly: the user's input is wrong, or the run failed."""


class InputError(Exception):
    """The input cannot be used. The message names the key or option and says what to write; exit code 2."""


class RunError(Exception):
    """Something failed while running: a server that died, a file that vanished; exit code 1."""
