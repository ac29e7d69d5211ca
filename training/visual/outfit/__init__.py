"""The outfit model: what goes with what, and which item is missing.

Belongs here: from vectors of items worn or bought together to two graphs with their evidence. Does not belong here:
vectors themselves (`embedder`), what is in stock or fits a shopper (`serving`).
"""
