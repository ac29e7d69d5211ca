"""The code location: assembled by a function that takes overrides, so tests swap parts without patching.

Belongs here: putting the domains together. Does not belong here: any asset, check or sensor itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from contracts.settings import read_retailer, read_settings
from orchestration import progress
from orchestration.defs import features, intake, loop, models, outbound, people, release
from orchestration.defs.jobs import JOB_NAMES, build_jobs
from orchestration.resources import Shop

__all__ = ["JOB_NAMES", "build_definitions", "defs"]

DOMAINS = (intake, people, features, models, release, loop, outbound)


def build_definitions(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Assemble the code location for the open shop.

    Args:
        overrides: Resources that replace the default ones, by key (``shop``, ``pipes``).
    """
    retailer = read_retailer(read_settings())
    resources: dict[str, Any] = {"shop": Shop(), "pipes": dg.PipesSubprocessClient(), **(overrides or {})}
    return dg.Definitions.merge(
        *(domain.build(retailer) for domain in DOMAINS),
        build_jobs(retailer),
        # In process: a step process of its own costs seconds of imports; training runs outside anyway.
        dg.Definitions(
            resources=resources,
            executor=dg.in_process_executor,
            loggers={progress.NAME: progress.progress_logger},
        ),
    )


defs = build_definitions()
