"""What runs and when: sources, the lake, Dagster definitions, the command.

Belongs here: wiring (`defs/`, `definitions.py`), mapping of raw data (`sources/`), writing of the lake
(`lake/`), shop profiles (`retailers/`), the command (`cli/`). Does not belong here: feature arithmetic
(`feature_repo`), models (`training`), the request path (`serving`).
"""
