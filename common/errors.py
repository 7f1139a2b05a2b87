"""The one error that a user caused and can mend."""


class UserError(Exception):
    """Bad input: its text is one line that says what to do. The command line prints it and exits with code 2."""
