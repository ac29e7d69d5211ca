"""Assets of the visual side: the catalogue of pictures, four models trained through Pipes, the index, the looks."""

import sys
from typing import Any

import dagster as dg

from contracts.retailer import Retailer
from contracts.settings import ROOT, read_settings
from orchestration.conditions import TRAINING_POOL, owners
from orchestration.defs.intake.assets import EVENTS, PRODUCTS
from orchestration.metadata import bars, markdown_table, picture
from orchestration.resources import Shop

GROUP = "visual"
PICTURES = dg.AssetKey(["visual", "pictures"])
CLICKS = dg.AssetKey(["visual", "clicks"])
DETECTOR = dg.AssetKey(["visual", "detector"])
EMBEDDER = dg.AssetKey(["visual", "embedder"])
TEXT = dg.AssetKey(["visual", "text"])
OUTFIT = dg.AssetKey(["visual", "outfit"])
INDEX = dg.AssetKey(["visual", "index"])
LOOKS = dg.AssetKey(["visual", "looks"])
KEYS = {"detector": DETECTOR, "embedder": EMBEDDER, "text": TEXT, "outfit": OUTFIT}


def visual_parts(retailer: Retailer) -> list[dg.AssetKey]:
    """Assets whose results go into a release; none for a shop without pictures."""
    if retailer.pictures is None:
        return []
    return [INDEX, TEXT, LOOKS] if "detector" in _trained(retailer) else [INDEX, TEXT]


def _trained(retailer: Retailer) -> tuple[str, ...]:
    from orchestration.visual.recipes import families
    from orchestration.visual.sets import pictures_of

    return families(pictures_of(retailer.pictures), read_settings())


def build_assets(retailer: Retailer) -> list[dg.AssetsDefinition]:
    """Assets of a shop that has pictures; models that it does not train are left out."""
    trained = _trained(retailer)
    common: dict[str, Any] = {"group_name": GROUP, "owners": owners(retailer)}

    @dg.asset(
        **common,
        key=PICTURES,
        deps=[PRODUCTS, EVENTS],
        kinds={"pillow", "parquet"},
        description="Every picture of the shop read once: what cannot be read, what is missing, what shows the same; "
        "thumbnails for the pages.",
    )
    def collected(context: dg.AssetExecutionContext, shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.visual.catalogue import collect
        from orchestration.visual.sheets import catalogue_sheet

        settings = shop.settings()
        done = collect(settings, shop.profile(), context.log.info)
        classes = done.table.group_by("class").aggregate([("key", "count")]).to_pylist()
        problems = [{"problem": name, "pictures": count} for name, count in sorted(done.problems.items())]
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": done.table.num_rows,
                "dagster/uri": str(settings.media),
                "decoded": done.decoded,
                "unusable": sum(done.problems.values()),
                "problems": markdown_table(problems, ["problem", "pictures"]),
                "without_picture": len(done.missing),
                "without_picture_examples": ", ".join(done.missing[:10]) or "none",
                "repeats": done.repeated,
                "looks": len(done.looks),
                "drawn": done.drawn,
                "classes": bars(
                    {row["class"]: float(row["key_count"]) for row in classes}, "Pictures by class"
                ),
                "sheet": picture(catalogue_sheet(settings), "some of the pictures"),
            }
        )

    @dg.asset(
        **common,
        key=CLICKS,
        deps=[PICTURES, EVENTS],
        kinds={"duckdb"},
        description="What shoppers chose among visual results, as pairs of a picture and a product to learn from.",
    )
    def clicks(shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.visual.clicks import collect_clicks

        settings = shop.settings()
        found = collect_clicks(settings)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": found.pairs,
                "dagster/uri": str(found.path),
                "surfaces": markdown_table(found.surfaces, ["surface", "pairs", "mean_place"]),
                "pictures_to_learn_from": found.pictures,
                "with_kept_vectors": found.vectors,
            }
        )

    needs = {
        "detector": [PICTURES],
        "embedder": [PICTURES, CLICKS],
        "text": [EMBEDDER],
        "outfit": [EMBEDDER, EVENTS],
    }
    about = {
        "detector": "Finds every item of a photo, with box and class.",
        "embedder": "Makes a picture a vector: what looks alike lies near; names type, colour and pattern.",
        "text": "Makes words a vector in the embedder's space.",
        "outfit": "Says what goes with what, from what is worn and what is bought together.",
    }

    def model(family: str) -> dg.AssetsDefinition:
        @dg.asset(
            **common,
            key=KEYS[family],
            deps=needs[family],
            kinds={"pytorch", "onnx", "mlflow"},
            pool=TRAINING_POOL,
            description=about[family],
        )
        def trained_model(
            context: dg.AssetExecutionContext, shop: Shop, pipes: dg.PipesSubprocessClient
        ) -> dg.MaterializeResult[Any]:
            return _train(context, shop, pipes, family)

        return trained_model

    @dg.asset(
        **common,
        key=INDEX,
        deps=[KEYS[family] for family in trained if family != "detector"] + [PICTURES],
        kinds={"onnx", "numpy"},
        pool=TRAINING_POOL,
        description="Every product's vector by category, with price and stock; the embedder's hash lies inside.",
    )
    def index(context: dg.AssetExecutionContext, shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.visual.making import build_index

        made = build_index(shop.settings(), shop.profile(), context.log.info)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": made.settings.products,
                "dim": made.settings.dim,
                "embedder": made.embedder,
                "outfit": made.outfit or "none",
                "meaning": made.settings.meaning,
                "by_category": bars(
                    {name: float(count) for name, count in made.rows.items()}, "Index by category"
                ),
                "recall_at_10_by_cells": made.recalls or "all categories are searched exactly",
                "self_first": made.self_first,
                "stated_by_the_catalogue": made.stated or "nothing: vectors tell no attributes",
                "types_without_products": ", ".join(made.unanswered) or "none",
            }
        )

    @dg.asset(
        **common,
        key=LOOKS,
        deps=[INDEX, DETECTOR],
        kinds={"onnx", "numpy"},
        pool=TRAINING_POOL,
        description="The shop's own pictures with a hotspot on every item, and the products that answer it.",
    )
    def looks(context: dg.AssetExecutionContext, shop: Shop) -> dg.MaterializeResult[Any]:
        from orchestration.visual.making import build_looks
        from orchestration.visual.sheets import looks_sheet

        settings = shop.settings()
        spots = build_looks(settings, shop.profile(), context.log.info)
        rows = [{"class": name, "hotspots": count} for name, count in spots.classes.items()]
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": spots.looks,
                "hotspots": spots.spots,
                "looks_without_hotspot": spots.empty,
                "classes": markdown_table(rows, ["class", "hotspots"]),
                "sheet": picture(looks_sheet(settings), "looks with hotspots and their first answers"),
            }
        )

    made = [collected, clicks, *(model(family) for family in trained), index]
    return [*made, looks] if "detector" in trained else made


def _train(
    context: dg.AssetExecutionContext, shop: Shop, pipes: dg.PipesSubprocessClient, family: str
) -> dg.MaterializeResult[Any]:
    """Write the config, run the family's trainer, and report what its bundle says."""
    from orchestration.services import environment
    from orchestration.training_jobs import finish
    from orchestration.visual.recipes import prepare
    from orchestration.visual.sheets import bundle_sheets

    settings = shop.settings()
    job = prepare(settings, shop.profile(), family)
    context.log.info(f"training {family}: config {job.config}")
    command = [sys.executable, "-m", "training.visual", family, "--config", str(job.config)]
    pipes.run(
        context=context, command=command, cwd=str(ROOT), env={**environment(settings), "OMP_NUM_THREADS": "2"}
    )
    bundle = finish(settings, job)
    rows = [{"metric": name, "value": float(value)} for name, value in sorted(bundle.metrics.items())]
    metadata: dict[str, Any] = {
        "mlflow_run_id": bundle.run_id,
        "model_uri": bundle.model_uri,
        "bundle": str(job.out),
        "metrics": markdown_table(rows, ["metric", "value"]),
    }
    for name, sheet in bundle_sheets(job.out, bundle).items():
        metadata[name] = picture(sheet, name.replace("_", " "))
    if table := bundle.details.get("per_class"):
        metadata["per_class"] = markdown_table(table, list(table[0]))
    return dg.MaterializeResult(metadata=metadata)
