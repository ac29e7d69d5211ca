"""Checks of the visual side: pictures can be read, every product finds itself, the release sees as it was made."""

from typing import Any

import dagster as dg

from contracts.retailer import Retailer
from orchestration.defs.visual.assets import INDEX, PICTURES
from orchestration.resources import Shop

SAMPLE = 100
"""Pictures that are embedded again for the check that they find themselves."""


def build_checks(retailer: Retailer) -> list[dg.AssetChecksDefinition]:
    """Broken pictures, and self-retrieval."""

    @dg.asset_check(
        asset=PICTURES,
        name="pictures_can_be_read",
        blocking=True,
        description="The share of pictures that cannot be read is at most what the shop's profile allows.",
    )
    def pictures_can_be_read(shop: Shop) -> dg.AssetCheckResult:
        from orchestration.visual.catalogue import read
        from orchestration.visual.sets import pictures_of

        table = read(shop.settings())
        broken = [row for row in table.select(["key", "problem"]).to_pylist() if row["problem"]]
        share = len(broken) / max(table.num_rows, 1)
        allowed = pictures_of(shop.profile().pictures).largest_broken_share
        metadata: dict[str, Any] = {
            "share": share,
            "allowed": allowed,
            "examples": ", ".join(f"{row['key']} ({row['problem']})" for row in broken[:10]) or "none",
        }
        return dg.AssetCheckResult(passed=table.num_rows > 0 and share <= allowed, metadata=metadata)

    @dg.asset_check(
        asset=INDEX,
        name="finds_itself",
        blocking=True,
        description="A catalogue picture finds itself first: all vectors, and a sample read and embedded again.",
    )
    def finds_itself(shop: Shop) -> dg.AssetCheckResult:
        from orchestration.visual.proving import find_again

        proof = find_again(shop.settings(), shop.profile(), SAMPLE)
        return dg.AssetCheckResult(
            passed=proof.every == 1.0 and proof.again == 1.0,
            metadata={"all_vectors": proof.every, "embedded_again": proof.again, "sample": proof.sample,
                      "lost": ", ".join(proof.lost[:10]) or "none"},
        )  # fmt: skip

    return [pictures_can_be_read, finds_itself]
