"""Building the index of a log that is larger than memory."""
