"""The error for data that cannot be used as it is."""


class DataError(ValueError):
    """What the user gave cannot be used; the message names the file, the row and the column at fault."""
