"""Rerankers: recommenders that reorder the candidates of other recommenders."""
