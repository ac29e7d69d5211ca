"""Outbound: audiences and next best actions leave the platform as files, SQL tables and signed webhooks.

The way: `people.py` (one row per person, from the lake) -> `audiences.py` (who, within consent) -> `exporting.py`
(each destination in turn: `files.py`, `sql.py`, or `outbox.py` and `sending.py` for webhooks). `outbox.py` also
remembers everything that was ever written, so that `forgetting.py` finds it again and `auditing.py` can look.

Belongs here: choosing, writing, sending, forgetting what was sent. Does not belong here: predictions, segments and
the choice of actions (`training/relationship`, `orchestration/lake`).
"""
