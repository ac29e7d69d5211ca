"""Releases: pull, verify, load, swap, keep the previous.

Belongs here: everything between a registry and a live engine. Does not belong here: how an answer is
made (`serving/engine`), assembling and signing a release (`training/packaging.py`).
"""

from serving.releases.release import Release, load_release, open_release
from serving.releases.verify import ReleaseError

__all__ = ["Release", "ReleaseError", "load_release", "open_release"]
