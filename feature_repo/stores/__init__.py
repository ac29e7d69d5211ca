"""Feast stores of our own: the offline store whose point-in-time join is DuckDB's ASOF JOIN.

Belongs here: classes that Feast loads by path, and the joins and readers they stand on. Does not
belong here: feature views and services (`feature_repo`), and who calls them (`feature_repo/retrieval.py`).
"""
