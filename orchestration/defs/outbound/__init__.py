"""Outbound: audiences and actions leave the platform, and what left is looked at again."""

from __future__ import annotations

import dagster as dg

from contracts.retailer import Retailer
from orchestration.defs.outbound.assets import build_assets
from orchestration.defs.outbound.checks import build_checks


def build(retailer: Retailer) -> dg.Definitions:
    """Assets and checks of what leaves."""
    return dg.Definitions(assets=build_assets(retailer), asset_checks=build_checks())
