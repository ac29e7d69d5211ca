"""Release: assembled and signed, judged on the frozen set, promoted by moving an alias."""

from __future__ import annotations

import dagster as dg

from contracts.retailer import Retailer
from orchestration.defs.release.assets import build_assets
from orchestration.defs.release.checks import build_checks


def build(retailer: Retailer) -> dg.Definitions:
    """Assets and checks of the release."""
    return dg.Definitions(assets=build_assets(retailer), asset_checks=build_checks())
