"""Assets of the release: the signed candidate, the verdict on it, and the champion that serving follows."""

from typing import Any

import dagster as dg

from contracts.retailer import Retailer
from orchestration.conditions import TRAINING_POOL, owners
from orchestration.defs.features.assets import HISTORIES
from orchestration.defs.intake.assets import EXPOSURES
from orchestration.defs.models.assets import ENCODER, FROZEN, RANKER
from orchestration.defs.visual.assets import visual_parts
from orchestration.metadata import bars, markdown_table
from orchestration.resources import Shop

GROUP = "release"
CANDIDATE = dg.AssetKey(["release", "candidate"])
VERDICT = dg.AssetKey(["release", "verdict"])
CHAMPION = dg.AssetKey(["release", "champion"])


def build_assets(retailer: Retailer) -> list[dg.AssetsDefinition]:
    """Candidate, verdict and champion."""
    common: dict[str, Any] = {
        "group_name": GROUP,
        "owners": owners(retailer),
        "key_prefix": ["release"],
        "pool": TRAINING_POOL,
    }

    @dg.asset(
        **common,
        deps=[ENCODER, RANKER, HISTORIES, EXPOSURES, *visual_parts(retailer)],
        kinds={"onnx", "mlflow"},
        description="Both models and the item table as one signed folder with golden answers, registered as challenger.",
    )
    def candidate(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.shipping import build

        built = build(shop.settings(), shop.profile())
        files = [
            {"component": part.name, "file": file.path, "bytes": file.size, "sha256": file.sha256[:12]}
            for part in built.manifest.components
            for file in part.files
        ]
        return dg.MaterializeResult(
            metadata={
                "release": built.manifest.release,
                "version": built.version,
                "dagster/uri": str(built.folder),
                "as_of": built.manifest.as_of.isoformat(),
                "lake": built.manifest.lake,
                "visual_parts": ", ".join(built.visual) or "none",
                "files": markdown_table(files, ["component", "file", "bytes", "sha256"]),
            }
        )

    @dg.asset(
        **common,
        deps=[CANDIDATE, FROZEN],
        kinds={"onnx"},
        description="Challenger against champion and baselines on the frozen set, by the code that serves.",
    )
    def verdict(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.shipping import judge

        spoken = judge(shop.settings(), shop.profile())
        return dg.MaterializeResult(
            metadata={
                "version": spoken.version,
                "passed": spoken.passed,
                "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in spoken.reasons)),
                "numbers": markdown_table(
                    [{"number": k, "value": v} for k, v in spoken.numbers.items()], ["number", "value"]
                ),
                "comparison": bars(spoken.means, "NDCG@10 on the frozen set", "challenger"),
                "visual": markdown_table(spoken.visual, ["number", "challenger", "champion"]),
            }
        )

    @dg.asset(
        **common,
        deps=[VERDICT],
        kinds={"mlflow"},
        description="Moves the alias `champion` to the challenger if the verdict allows it; serving follows.",
    )
    def champion(context: dg.AssetExecutionContext, shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.shipping import promote

        moved = promote(shop.settings(), shop.profile())
        context.log.info(moved.text)
        return dg.MaterializeResult(
            metadata={
                "promoted": moved.promoted,
                "champion": moved.champion or "none",
                "previous_champion": moved.previous or "none",
                "decision": moved.text,
            }
        )

    return [candidate, verdict, champion]
