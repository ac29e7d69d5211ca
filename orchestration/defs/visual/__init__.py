"""The visual side: pictures, what is learned from them, the index and the looks of a release."""

from __future__ import annotations

import dagster as dg

from contracts.retailer import Retailer
from orchestration.defs.visual.assets import build_assets
from orchestration.defs.visual.checks import build_checks


def build(retailer: Retailer) -> dg.Definitions:
    """Assets and checks of a shop that has pictures; none for another."""
    if retailer.pictures is None:
        return dg.Definitions()
    assets = build_assets(retailer)
    return dg.Definitions(assets=assets, asset_checks=build_checks(retailer))
