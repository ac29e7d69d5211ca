"""Training of the ranker from its config to its bundle: read this one from top to bottom.

Belongs here: the order of the steps and what is logged. Does not belong here: the steps.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
import tempfile
from collections.abc import Callable

import duckdb
import lightgbm as lgb
import mlflow
import msgspec
import numpy as np
import numpy.typing as npt

from contracts.features import MICROSECONDS_PER_DAY, RANKER_FEATURES
from contracts.settings import Settings, read_settings
from feature_repo.catalog import VIEWS
from feature_repo.snapshots import delta_files
from training import tracking
from training.config import (
    Bundle,
    ConfigError,
    RankerConfig,
    decode_params,
    put,
    read_bundle,
    stage,
    write_bundle,
)
from training.continuum.data import read_sequences
from training.continuum.infer import open_encoder
from training.ranker import candidates, data, evaluate, export, items, model, report, requests
from training.ranker.params import RankerParams, Variant

TABLES = ("events", "products", "exposures")
FEATURES = list(RANKER_FEATURES)

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Shop:
    """What is read once.

    Attributes:
        con: DuckDB over the pinned lake.
        settings: The installation.
        lake: Delta version by table.
        catalogue: Products and stores.
        lines: Purchases.
        encoder: Scores of requests.
        vocabulary: str[V + 1], the encoder's ids.
        source: Stored features.
        promotions: Displays and mailers of the weeks that are learned from and judged on.
    """

    con: duckdb.DuckDBPyConnection
    settings: Settings
    lake: dict[str, int]
    catalogue: items.Catalogue
    lines: requests.Lines
    encoder: data.OnnxScorer
    vocabulary: npt.NDArray[np.str_]
    source: data.FeatureSource
    promotions: data.Promotions


@dataclasses.dataclass(frozen=True, eq=False)
class Learned:
    """A fitted ranker and what it was fitted on.

    Attributes:
        booster: The trees.
        fit: The fit that chose their number.
        requests: Training requests.
        rows: Rows learned from.
    """

    booster: lgb.Booster
    fit: model.Fit
    requests: int
    rows: int


def train(config: RankerConfig, progress: Progress = lambda line: None) -> Bundle:
    """Train, export, prove and judge a ranker; the bundle folder ``config.out`` is written as a whole.

    Args:
        config: See `training.config.RankerConfig`; ``encoder`` is the encoder's bundle folder.
        progress: Receives one line per stage.

    Raises:
        ConfigError: A key does not fit, or there is nothing to learn from or to be judged on.
        SnapshotError: A lake table or version is missing.
        ParityError: The exported graph and the trees disagree.
    """
    params = decode_params(config.params, RankerParams)
    staged = stage(config.out)
    with tempfile.TemporaryDirectory(dir=staged.parent) as scratch, tracking.start(config) as run:
        shop = open_shop(config, pathlib.Path(scratch))
        log_inputs(config, shop)
        learned = learn(config, params, shop, progress)
        export.export_onnx(learned.booster, staged / "ranker.onnx")
        judged, frozen = judge(config, params, shop, learned, progress)
        numbers = evaluate.summary(judged, config.seed)
        parity = export.check_parity(learned.booster, staged / "ranker.onnx", frozen.features)
        numbers["onnx_largest_difference"] = parity.largest
        learned.booster.save_model(staged / "ranker.txt")
        save_results(staged / "results.npz", shop, judged)
        uri = log_results(config, params, shop, learned, judged, numbers, staged)
        bundle = Bundle(
            family="ranker",
            run_id=run.info.run_id,
            model_uri=uri,
            metrics=tracking.flatten_intervals(numbers),
            config=msgspec.to_builtins(config),
            files={
                "onnx": "ranker.onnx",
                "trees": "ranker.txt",
                "card": "model_card.md",
                "results": "results.npz",
            },
            details={
                "features": FEATURES,
                "rounds": learned.booster.num_trees(),
                "params": msgspec.to_builtins(params),
                "parity": dataclasses.asdict(parity),
                "curve": {"validation_ndcg_at_10": list(learned.fit.curve)},
                "comparison": {
                    name: mean for name, (mean, _, _) in report.comparison(judged, numbers).items()
                },
            },
            lake=shop.lake,
        )
        write_bundle(staged, bundle)
    out = put(staged, config.out)
    progress(f"bundle {out.name}: NDCG@10 {bundle.metrics['ndcg_at_10']:.4f}")
    return read_bundle(out)


def open_shop(config: RankerConfig, scratch: pathlib.Path) -> Shop:
    """Read everything that does not depend on a request.

    Raises:
        ConfigError: The encoder has seen what the ranker learns from.
    """
    settings = read_settings({"CONTINUUM_HOME": config.home, "RETAILER": config.retailer})
    folder = pathlib.Path(config.encoder)
    _check_encoder(config, read_bundle(folder))
    lake = {name: delta_files(settings.lake / name, config.lake.get(name))[0] for name in TABLES}
    con = items.open_lake(settings, lake)
    catalogue = items.read_catalogue(con)
    lines = requests.read_lines(con, catalogue)
    encoder = open_encoder(folder, config.threads)
    scorer = data.OnnxScorer(encoder, read_sequences(con, encoder.product_ids), lines.customers)
    source = data.FeatureSource(settings, config.feature_service, catalogue, lines.customers, scratch)
    window = items.to_days(config.ranker_from), items.to_days(config.evaluate_until)
    promotions = data.read_promotions(con, catalogue, *window)
    return Shop(con, settings, lake, catalogue, lines, scorer, encoder.product_ids, source, promotions)


def learn(config: RankerConfig, params: RankerParams, shop: Shop, progress: Progress) -> Learned:
    """Fit on the weeks before the evaluation; the last of them chooses the number of trees.

    Raises:
        ConfigError: The window holds fewer than two cuts, or no request.
    """
    start, stop = items.to_days(config.ranker_from), items.to_days(config.train_until)
    moments = requests.cuts(start, stop, params.cut_days)
    if len(moments) < 2:
        raise ConfigError(
            f"`$.ranker_from` is {stop - start:.0f} days before train_until; expected at least two times "
            f"cut_days ({params.cut_days})"
        )
    asked = requests.training_requests(shop.lines, moments, stop)
    later = asked.at_us >= items.micros(moments[-1])
    earlier = ~later
    if not later.any() or not earlier.any():
        raise ConfigError(
            f"`$.ranker_from`: {int(earlier.sum())} requests to learn from and {int(later.sum())} to choose on; "
            "expected some of both"
        )
    progress(f"{len(asked)} requests after {len(moments)} cuts")
    chosen = find_candidates(shop, asked, moments[0])
    progress(f"{len(chosen)} candidates")
    label = data.labels(chosen, asked.targets)
    chooses = later[chosen.row]
    sampled = data.sample(chosen, label, params, config.seed)
    # What is learned from first, what is chosen on last: then both are parts of one matrix, which is the largest
    # thing in memory.
    learns = np.flatnonzero(sampled & ~chooses)
    whole = data.build_dataset(
        shop.source, asked, chosen, shop.promotions, np.concatenate([learns, np.flatnonzero(chooses)])
    )
    progress(f"{len(whole.label)} rows with {len(FEATURES)} features")
    learning, validation = whole.rows(slice(0, len(learns))), whole.rows(slice(len(learns), None))
    fit = model.fit(
        learning, validation, asked.targets, FEATURES, params, threads=config.threads, seed=config.seed
    )
    progress(f"{fit.rounds} trees, validation NDCG@10 {fit.best:.4f}")
    if not params.refit:
        return Learned(fit.booster, fit, int(earlier.sum()), len(learning.label))
    again = data.sample(whole.candidates, whole.label, params, config.seed + 1)
    again[: len(learns)] = True
    final = whole if again.all() else whole.rows(again)
    booster = model.refit(final, FEATURES, params, fit.rounds, threads=config.threads, seed=config.seed)
    return Learned(booster, fit, len(asked), len(final.label))


def judge(
    config: RankerConfig, params: RankerParams, shop: Shop, learned: Learned, progress: Progress
) -> tuple[evaluate.Evaluation, data.Dataset]:
    """Answer the frozen requests in every variant, and let the baselines answer them.

    Raises:
        ConfigError: There is no request in the evaluation window.
    """
    start, stop = items.to_days(config.evaluate_from), items.to_days(config.evaluate_until)
    asked = requests.first_baskets(shop.lines, start, stop)
    if not len(asked):
        raise ConfigError(
            "`$.evaluate_from`: no customer buys in the evaluation window; expected some requests"
        )
    reach = evaluate.reach(shop.lines.until(start, len(shop.catalogue.product_id)))
    results = {}
    sets: data.Dataset | None = None
    for variant in params.variants:
        seen = as_variant(shop.lines, asked, variant)
        found = data.build_dataset(shop.source, seen, find_candidates(shop, seen, start), shop.promotions)
        scores = model.predict(learned.booster, found.features, config.threads)
        results[variant] = evaluate.judge(evaluate.ranked(found, scores), asked.targets, reach)
        progress(f"{variant}: NDCG@10 {results[variant].ndcg.mean():.4f}")
        sets = sets or found
    if sets is None:
        raise ConfigError("`params.variants` is empty; expected at least one variant")
    baselines = evaluate.baselines(shop.lines, asked, start, len(shop.catalogue.product_id))
    groups = evaluate.segments(shop.lines, asked)
    recall = float(sets.label.sum() / max(1, int(asked.targets.counts.sum())))
    return evaluate.Evaluation(results, baselines, groups, recall), sets


def as_variant(lines: requests.Lines, asked: requests.Requests, variant: Variant) -> requests.Requests:
    """The same requests with only what the variant knows of them."""
    if variant == "full":
        return asked
    known = dataclasses.replace(asked, store=requests.usual_stores(lines, asked))
    return known if variant == "store_unknown" else dataclasses.replace(known, at_us=known.cut_us)


def find_candidates(shop: Shop, asked: requests.Requests, moment: float) -> candidates.Candidates:
    """Candidates with co-bought neighbours as of one moment and popularity as of each request's cut."""
    catalogue = shop.catalogue
    size = len(catalogue.product_id)
    latest = float(asked.cut_us.max()) / MICROSECONDS_PER_DAY
    baskets = items.read_baskets(shop.con, catalogue, latest)
    neighbours, scores = items.co_bought(baskets.before(moment), size)
    tables = {
        "product_id": catalogue.product_id, "sellable": catalogue.sellable,
        "encoder_id": items.encoder_ids(catalogue.product_id, shop.vocabulary),
        "neighbours": neighbours, "neighbour_scores": scores,
    }  # fmt: skip
    popular = {
        int(cut): items.popular(baskets, catalogue, cut / MICROSECONDS_PER_DAY)
        for cut in np.unique(asked.cut_us)
    }
    return candidates.generate(shop.lines, asked, tables, popular, shop.encoder)


def log_inputs(config: RankerConfig, shop: Shop) -> None:
    """Name the data and the encoder that the run reads."""
    for name, version in shop.lake.items():
        path = shop.settings.lake / name
        tracking.log_dataset(name, source=path, digest=f"{name}-{version}", context="train", version=version)
    views = feature_versions(shop.settings)
    for name, version in views.items():
        path = shop.settings.features / name
        tracking.log_dataset(name, source=path, digest=f"{name}-{version}", context="train", version=version)
    mlflow.set_tag("encoder_run", read_bundle(pathlib.Path(config.encoder)).run_id)


def feature_versions(settings: Settings) -> dict[str, int]:
    """Version of each feature table."""
    return {name: delta_files(settings.features / name)[0] for name in VIEWS}


def log_results(
    config: RankerConfig,
    params: RankerParams,
    shop: Shop,
    learned: Learned,
    judged: evaluate.Evaluation,
    numbers: dict[str, float | tuple[float, float, float]],
    folder: pathlib.Path,
) -> str:
    """Log model, numbers, plots and the card into the open run; the card also goes to the bundle.

    Returns:
        URI of the LoggedModel.
    """
    gains = model.importance(learned.booster, FEATURES)
    facts = report.Facts(
        config=config,
        params=params,
        lake=shop.lake,
        code_version=tracking.code_version(),
        encoder_run=read_bundle(pathlib.Path(config.encoder)).run_id,
        requests=learned.requests,
        rows=learned.rows,
        rounds=learned.booster.num_trees(),
        frozen=len(judged.headline.ndcg),
        recall=judged.candidate_recall,
        parity=float(np.max(numbers["onnx_largest_difference"])),
    )
    card = report.model_card(facts, judged, numbers, gains)
    (folder / "model_card.md").write_text(card)
    model_id, uri = tracking.log_onnx(folder / "ranker.onnx", "ranker")
    tracking.log_metrics(numbers, model_id)
    tracking.log_curve("validation_ndcg_at_10", learned.fit.curve)
    tracking.log_comparison("NDCG at 10", report.comparison(judged, numbers), highlight="ranker")
    mlflow.log_figure(report.importance_figure(gains), "plots/feature-importance.png")
    mlflow.log_dict(gains, "feature_importance.json")
    tracking.log_model_card(card)
    return uri


def save_results(path: pathlib.Path, shop: Shop, judged: evaluate.Evaluation) -> None:
    """Per-request NDCG@10 and answers of every system, for later comparisons."""
    results = {**{f"ranker_{name}": found for name, found in judged.ranker.items()}, **judged.baselines}
    np.savez_compressed(
        path,
        product_id=shop.catalogue.product_id,
        **{f"ndcg_{name}": found.ndcg for name, found in results.items()},
        **{f"answers_{name}": found.answers for name, found in results.items()},
    )


def _check_encoder(config: RankerConfig, encoder: Bundle) -> None:
    """An encoder that has seen the ranker's requests would look better on them than it is.

    Raises:
        ConfigError: It has, or the folder holds something else than an encoder.
    """
    if encoder.family != "encoder":
        raise ConfigError(
            f"`$.encoder` is a bundle of family '{encoder.family}'; expected one of family 'encoder'"
        )
    until = dt.datetime.fromisoformat(encoder.config["train_until"])
    if until > config.ranker_from:
        raise ConfigError(
            f"`$.encoder` was trained on events until {until.isoformat()}; expected no later than ranker_from "
            f"({config.ranker_from.isoformat()}), so that its scores are those of an unseen moment"
        )
