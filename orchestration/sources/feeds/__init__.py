"""Feeds: files and tables of a retailer's own, read by what their yaml says.

The way of a row: bytes (`text.py`, `detection.py`) -> relation (`reading.py`) -> format (`formats/`) ->
mapping (`mapping.py`) -> part (`staging.py`) -> the lake, through `orchestration/sources/files.py`.

Belongs here: everything that turns foreign rows into canonical ones. Does not belong here: checking them
against the contract and writing them (`orchestration/lake`).
"""
