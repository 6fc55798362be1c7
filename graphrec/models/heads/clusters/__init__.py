"""The head that chooses a learned cluster, then a user of it."""
