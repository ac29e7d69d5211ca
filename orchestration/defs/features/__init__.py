"""Features: rows by day, Feast's registry, the online store, and the histories that serving reads."""

from __future__ import annotations

import dagster as dg

from contracts.retailer import Retailer
from orchestration.defs.features.assets import build_assets


def build(retailer: Retailer) -> dg.Definitions:
    """Assets and checks of the feature repository."""
    return dg.Definitions(assets=build_assets(retailer))
