"""People: who is who, how they move, which moments they have, what comes next, and the shop at a glance."""

from __future__ import annotations

import dagster as dg

from contracts.retailer import Retailer
from orchestration.defs.people import outlook
from orchestration.defs.people.assets import build_assets


def build(retailer: Retailer) -> dg.Definitions:
    """Assets about people."""
    return dg.Definitions(assets=[*build_assets(retailer), *outlook.build_assets(retailer)])
