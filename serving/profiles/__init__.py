"""Live customer state: histories, the published snapshot, the merge with the inbox's tail, the fold.

Belongs here: what the server knows about one customer at one moment. Does not belong here: models
(`serving/engine`), storage of accepted events (`serving/inbox`).
"""
