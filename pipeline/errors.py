"""Why a command cannot go on: an `InputError` is the user's to repair, all else is a fault."""


class InputError(ValueError):
    """A value from outside (config, flag, path, file) that cannot work.

    The message is one line: the value received and the repair. Commands print it and exit with 2,
    before anything is compiled.
    """
