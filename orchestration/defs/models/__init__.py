"""Models: the frozen evaluation set, the encoder and the ranker, trained outside through Pipes."""

from __future__ import annotations

import dagster as dg

from contracts.retailer import Retailer
from orchestration.defs.models.assets import build_assets


def build(retailer: Retailer) -> dg.Definitions:
    """Assets of the models."""
    return dg.Definitions(assets=build_assets(retailer))
