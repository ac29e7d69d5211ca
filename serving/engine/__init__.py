"""How an answer is made: sessions, candidates, features, ranking, reasons, exploration.

Belongs here: pure functions from a history, a moment and a release to ranked items with evidence.
Does not belong here: HTTP, storage, fetching of releases.
"""
