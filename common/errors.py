"""Errors that more than one room knows of."""


class UserError(Exception):
    """Bad input: its text is one line that says what to do. The command line prints it and exits with code 2."""


class NoWindowsError(Exception):
    """Nothing can be drawn yet: no episode is long enough, or, where whole episodes are drawn, none has finished."""


class EnvironmentFailedError(Exception):
    """An environment raised, and one built anew does so too: its process is of no use. The text says what it was."""
