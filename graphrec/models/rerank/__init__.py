"""Recommenders made of recommenders: what is recommended is put in another order."""
