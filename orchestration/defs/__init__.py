"""Dagster wiring, one folder per domain; each offers `build(retailer) -> dg.Definitions`.

Belongs here: assets, checks, jobs, sensors. Does not belong here: the work they start, which lives in
modules that know nothing of Dagster.
"""
