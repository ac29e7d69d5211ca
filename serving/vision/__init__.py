"""Seeing: from a photo, words or a product to what the shop sells.

Belongs here: decoding photos, boxes, the visual models of a release, search, re-ranking, looks. Does not
belong here: HTTP (`serving/routes/vision.py`), proving a release (`serving/releases`), training.
"""
