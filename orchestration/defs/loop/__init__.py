"""The loop: what has happened since the champion, and the sensors that act on it."""

from __future__ import annotations

import dagster as dg

from contracts.retailer import Retailer
from orchestration.defs.loop.assets import build_assets
from orchestration.defs.loop.sensors import build_sensors


def build(retailer: Retailer) -> dg.Definitions:
    """Evidence asset, sensors and the automation sensor."""
    return dg.Definitions(assets=build_assets(retailer), sensors=build_sensors(retailer))
