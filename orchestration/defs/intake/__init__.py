"""Intake: raw rows of the source and of the inbox become tables of the lake."""

from __future__ import annotations

import dagster as dg

from contracts.retailer import Retailer
from orchestration.defs.intake.assets import build_assets
from orchestration.defs.intake.checks import build_checks


def build(retailer: Retailer) -> dg.Definitions:
    """Assets and checks of the lake."""
    return dg.Definitions(assets=build_assets(retailer), asset_checks=build_checks())
