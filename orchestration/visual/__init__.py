"""The pictures of a shop: which there are, what they show, and what is made of them for a release.

Belongs here: from a shop's profile to picture sets, the catalogue of pictures, configs of the visual models, the
index and the looks. Does not belong here: layouts, models and search (`training/visual`), Dagster (`defs/visual`).
"""
