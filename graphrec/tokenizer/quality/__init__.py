"""The quality of codes: their use, collisions and drift, and how well they separate ties from other pairs.

The names are imported from `graphrec.tokenizer`: this package is imported by the tokenizers and imports them.
"""
