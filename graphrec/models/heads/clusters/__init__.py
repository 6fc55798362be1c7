"""The head that predicts a learned cluster, then a user in it."""
