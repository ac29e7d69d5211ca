"""Checks of the release: the exported graphs answer as the trained models do."""

import dagster as dg

from orchestration.defs.release.assets import CANDIDATE
from orchestration.resources import Shop

LARGEST_DIFFERENCE = 2e-3
"""Of any score, on batches of 1, 2, 7 and several lengths; training itself stops if the top 20 differ."""


def build_checks() -> list[dg.AssetChecksDefinition]:
    """Parity of ONNX with torch and LightGBM, as measured at export and kept in the bundles."""

    @dg.asset_check(
        asset=CANDIDATE,
        name="onnx_parity",
        blocking=True,
        description="Top-20 of the ONNX graphs equals that of torch and LightGBM, up to ties.",
    )
    def onnx_parity(shop: Shop) -> dg.AssetCheckResult:
        from orchestration.training_jobs import latest_bundle
        from training.config import read_bundle

        settings = shop.settings()
        found = {
            family: read_bundle(latest_bundle(settings, family)).metrics["onnx_largest_difference"]
            for family in ("encoder", "ranker")
        }
        return dg.AssetCheckResult(
            passed=all(difference <= LARGEST_DIFFERENCE for difference in found.values()),
            metadata={f"{family}_largest_difference": difference for family, difference in found.items()},
        )

    return [onnx_parity]
