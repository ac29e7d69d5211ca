"""Features: how rows are computed from the lake, how Feast knows them, how they are joined to moments.

Belongs here: Ibis transforms, Feast objects, our offline store, reading of lake snapshots. Does not
belong here: writing the lake (`orchestration/lake`), models (`training`), live state (`serving`).
"""
