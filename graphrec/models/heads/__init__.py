"""Heads: distributions over all users, behind one protocol."""
