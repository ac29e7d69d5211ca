"""Durable event intake: one SQLite file that acknowledges an event only after it is on disk.

Belongs here: the file's schema, the group-commit writer, the reader that orchestration drains with.
Does not belong here: HTTP (`serving/routes`), what events mean for a profile (`serving/profiles`).
"""

from serving.inbox.reader import last_offset, pending, read_after, read_refused

__all__ = ["last_offset", "pending", "read_after", "read_refused"]
