"""What crosses a boundary between rooms: the types, names and settings that every room may read.

Belongs here: message types, feature names, the release manifest, settings. Does not belong here:
anything that needs more than msgspec and the standard library.
"""
