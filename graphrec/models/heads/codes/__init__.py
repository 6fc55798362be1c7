"""The head that decodes STUs code by code."""
