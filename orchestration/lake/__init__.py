"""The lake: Delta tables of events, products, customers, exposures, offers and dead letters.

Belongs here: schemas, atomic writes, checks, intake from the inbox, published histories. Does not
belong here: a retailer's raw rows (`orchestration/sources`), reading of snapshots
(`feature_repo/snapshots.py`), features.
"""
