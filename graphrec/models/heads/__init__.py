"""Heads: what reaches all users, behind one protocol."""
