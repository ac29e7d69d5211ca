"""Training of the encoder from its config to its bundle: read this one from top to bottom.

Belongs here: the order of the steps and what is logged. Does not belong here: the steps.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from contracts.settings import Settings, read_settings
from feature_repo.snapshots import attach, connect
from training import tracking
from training.config import Bundle, ConfigError, EncoderConfig, check_config, put, stage, write_bundle
from training.continuum import memory, report
from training.continuum.data import (
    DataError,
    Sequences,
    Vocabulary,
    read_sequences,
    read_vocabulary,
    save_vocabulary,
)
from training.continuum.export import check_parity, example_inputs, export_onnx
from training.continuum.fit import Fit, Validation, fit
from training.continuum.infer import OnnxEncoder, open_session, pack
from training.evaluation.metrics import Targets, recall
from training.evaluation.statistics import mean_interval
from training.ranker import evaluate
from training.ranker.items import read_catalogue, to_days
from training.ranker.requests import Lines, Requests, first_baskets, read_lines

TABLES = ("events", "products")
RECALL = 100
PARITY_BATCHES = (1, 2, 7)

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Shop:
    """What is read once.

    Attributes:
        settings: The installation.
        lake: Delta version by table.
        vocabulary: Items of the encoder.
        sequences: Every event, in the vocabulary's ids.
        lines: Every purchase, in the catalogue's indices.
        product_id: str[N], the catalogue.
    """

    settings: Settings
    lake: dict[str, int]
    vocabulary: Vocabulary
    sequences: Sequences
    lines: Lines
    product_id: npt.NDArray[np.str_]

    def rows(self, requests: Requests) -> npt.NDArray[np.int64]:
        """int64[R], each request's customer as a row of the sequences."""
        wanted = self.lines.customers[requests.customer]
        return np.searchsorted(self.sequences.customers, wanted).astype(np.int64)


def train(config: EncoderConfig, progress: Progress = lambda line: None) -> Bundle:
    """Train, export, prove and judge an encoder; the bundle folder ``config.out`` is written as a whole.

    Args:
        config: See `training.config.EncoderConfig`.
        progress: Receives one line per stage and epoch.

    Raises:
        ConfigError: A key does not fit, or there is nothing to learn from or to be judged on.
        SnapshotError: A lake table or version is missing.
        TrainingError: The loss is not finite.
        ParityError: The exported graph and the network disagree.
    """
    check_config(config)
    torch.set_num_threads(config.threads)
    staged = stage(config.out)
    with tracking.start(config) as run:
        shop = open_shop(config)
        log_inputs(shop)
        progress(f"{len(shop.sequences.at)} events, {shop.vocabulary.size} items in the vocabulary")
        learned = learn(config, shop, progress)
        onnx = staged / "encoder.onnx"
        labelled = [name for name in ("buy", "avoid") if learned.heads[name]]
        export_onnx(learned.encoder, onnx, labelled)
        session = open_session(onnx, config.threads)
        parity = prove(config, shop, learned, session, labelled)
        progress(f"exported; ONNX Runtime agrees within {parity:.1e}")
        save_vocabulary(staged / "vocabulary.npz", shop.vocabulary)
        weights = {name: value.numpy() for name, value in learned.encoder.state_dict().items()}
        np.savez_compressed(staged / "weights.npz", **weights)
        encoder = OnnxEncoder(session, shop.vocabulary.product_id, config.params.length)
        judged, found = judge(config, shop, encoder)
        wide = mean_interval(found, config.seed)
        numbers = {
            **report.headline(evaluate.summary(judged, config.seed)),
            "recall_at_100": (wide.value, wide.low, wide.high),
            "onnx_largest_difference": parity,
            "training_seconds": learned.seconds,
        }
        progress(f"NDCG@10 {judged.headline.ndcg.mean():.4f} on {len(judged.headline.ndcg)} frozen requests")
        uri = log_results(config, shop, learned, judged, numbers, staged)
        bundle = Bundle(
            family="encoder",
            run_id=run.info.run_id,
            model_uri=uri,
            metrics=tracking.flatten_intervals(numbers),
            config=msgspec.to_builtins(config),
            files={
                "onnx": "encoder.onnx", "vocabulary": "vocabulary.npz", "weights": "weights.npz",
                "card": "model_card.md",
            },
            details={
                "length": config.params.length,
                "vocabulary": shop.vocabulary.size,
                "heads": learned.heads,
                "best_epoch": learned.best,
                "memory_weights": dict(zip(memory.RELATIONS, learned.weighed or memory.NONE, strict=True)),
                "curve": learned.curves,
                "comparison": {name: value[0] for name, value in report.comparison(judged, numbers).items()},
            },
            lake=shop.lake,
        )  # fmt: skip
        write_bundle(staged, bundle)
    put(staged, config.out)
    return bundle


def follow(config: EncoderConfig) -> None:
    """Take part in training as one of several processes of which another writes.

    Raises:
        ConfigError: As of `train`.
        SnapshotError: As of `train`.
        TrainingError: As of `train`.
    """
    check_config(config)
    torch.set_num_threads(config.threads)
    learn(config, open_shop(config), lambda line: None)


def open_shop(config: EncoderConfig) -> Shop:
    """Read the lake.

    Raises:
        ConfigError: Nothing was bought often enough before ``train_until``.
        SnapshotError: A table or version is missing.
    """
    settings = read_settings({"CONTINUUM_HOME": config.home, "RETAILER": config.retailer})
    con = connect(threads=config.threads)
    lake = {name: attach(con, name, settings.lake / name, config.lake.get(name)) for name in TABLES}
    vocabulary = _vocabulary(con, config)
    catalogue = read_catalogue(con)
    return Shop(
        settings,
        lake,
        vocabulary,
        read_sequences(con, vocabulary.product_id, to_days(config.evaluate_until)),
        read_lines(con, catalogue),
        catalogue.product_id,
    )


def _vocabulary(con: duckdb.DuckDBPyConnection, config: EncoderConfig) -> Vocabulary:
    params = config.params
    try:
        return read_vocabulary(
            con, to_days(config.train_until), min_count=params.min_count, cold_count=params.cold_count,
            fields=params.content, price_bands=params.price_bands, actions=params.target_actions,
        )  # fmt: skip
    except DataError as error:
        raise ConfigError(f"`$.train_until` is {config.train_until.isoformat()}: {error}") from error


def learn(config: EncoderConfig, shop: Shop, progress: Progress) -> Fit:
    """Train on what lies before the validation days; these choose the epoch.

    Raises:
        ConfigError: Nothing lies before the validation days.
    """
    stop = to_days(config.train_until)
    start = stop - config.params.validation_days
    past = shop.sequences.until(start)
    if not (past.item > 0).any():
        raise ConfigError(
            f"`$.params.validation_days` is {config.params.validation_days}: nothing in the vocabulary happens "
            f"before them; expected events to learn from before {config.train_until.isoformat()}"
        )
    asked = first_baskets(shop.lines, start, stop)
    if len(asked) > config.params.validation_customers:
        drawn = np.random.default_rng(config.seed).choice(
            len(asked), config.params.validation_customers, replace=False
        )
        asked = asked.select(np.sort(drawn))
    validation = Validation(shop.rows(asked), asked.at, _in_vocabulary(shop, asked.targets))
    return fit(
        past, shop.vocabulary, config.params, validation,
        seen=shop.sequences.until(stop), seed=config.seed, progress=progress,
    )  # fmt: skip


def _in_vocabulary(shop: Shop, targets: Targets) -> Targets:
    """Targets in encoder ids; -1 for items outside the vocabulary."""
    known = shop.vocabulary.product_id[1:]
    place = np.minimum(np.searchsorted(known, shop.product_id), len(known) - 1)
    encoder_id = np.where(known[place] == shop.product_id, place + 1, -1)
    return Targets(targets.offsets, encoder_id[targets.items])


def prove(
    config: EncoderConfig, shop: Shop, learned: Fit, session: ort.InferenceSession, heads: list[str]
) -> float:
    """Compare graph and network on random and on real histories.

    Returns:
        Largest difference of any score.

    Raises:
        ParityError: They disagree.
    """
    size = len(shop.vocabulary.product_id)
    lengths = sorted({1, 3, config.params.length // 2, config.params.length})
    cases = [
        example_inputs(batch, length, size, seed=length) for batch in PARITY_BATCHES for length in lengths
    ]
    rows = np.append(np.arange(min(6, len(shop.sequences.customers))), -1)
    cases.append(
        pack(shop.sequences, rows, np.full(len(rows), to_days(config.train_until)), config.params.length)
    )
    return max(check_parity(learned.encoder, session, case, heads) for case in cases)


def judge(
    config: EncoderConfig, shop: Shop, encoder: OnnxEncoder
) -> tuple[evaluate.Evaluation, npt.NDArray[np.float64]]:
    """Answer the frozen requests with the exported graph, and let the baselines answer them.

    Returns:
        The evaluation, and recall@100 per request.

    Raises:
        ConfigError: There is no request in the evaluation window.
    """
    start, stop = to_days(config.evaluate_from), to_days(config.evaluate_until)
    asked = first_baskets(shop.lines, start, stop)
    if not len(asked):
        raise ConfigError(
            "`$.evaluate_from`: no customer buys in the evaluation window; expected some requests"
        )
    answers = answer(shop, encoder, asked)
    size = len(shop.product_id)
    found = evaluate.judge(
        answers[:, : evaluate.K], asked.targets, evaluate.reach(shop.lines.until(start, size))
    )
    wide = recall(answers, asked.targets, RECALL)
    baselines = evaluate.baselines(shop.lines, asked, start, size)
    groups = evaluate.segments(shop.lines, asked)
    return evaluate.Evaluation({"full": found}, baselines, groups, float(wide.mean())), wide


def answer(shop: Shop, encoder: OnnxEncoder, asked: Requests) -> npt.NDArray[np.int64]:
    """The encoder's 100 best items of each request, in the catalogue's indices."""
    catalogue = np.searchsorted(shop.product_id, encoder.product_ids).astype(np.int64)
    k = min(RECALL, len(encoder.product_ids) - 1)
    rows, answers = shop.rows(asked), np.empty((len(asked), k), np.int64)
    for start in range(0, len(rows), 64):
        part = slice(start, start + 64)
        inputs = pack(shop.sequences, rows[part], asked.at[part], encoder.length)
        answers[part] = catalogue[encoder.run(inputs, ["top_items"], k)[0]]
    return answers


def log_inputs(shop: Shop) -> None:
    """Name the data that the run reads."""
    for name, version in shop.lake.items():
        path = shop.settings.lake / name
        tracking.log_dataset(name, source=path, digest=f"{name}-{version}", context="train", version=version)


def log_results(
    config: EncoderConfig,
    shop: Shop,
    learned: Fit,
    judged: evaluate.Evaluation,
    numbers: dict[str, float | tuple[float, float, float]],
    folder: pathlib.Path,
) -> str:
    """Log model, numbers, curves, plot and card into the open run; the card also goes to the bundle.

    Returns:
        URI of the LoggedModel.
    """
    past = shop.sequences.until(to_days(config.train_until) - config.params.validation_days)
    facts = report.Facts(
        config=config,
        lake=shop.lake,
        code_version=tracking.code_version(),
        vocabulary=shop.vocabulary.size,
        cold=int(shop.vocabulary.cold.sum()),
        customers=int((np.diff(past.offsets) > 0).sum()),
        events=len(past.at),
        heads=learned.heads,
        best=learned.best,
        seconds=learned.seconds,
        parity=float(np.max(numbers["onnx_largest_difference"])),
        frozen=len(judged.headline.ndcg),
    )
    card = report.model_card(facts, judged, numbers)
    (folder / "model_card.md").write_text(card)
    model_id, uri = tracking.log_onnx(folder / "encoder.onnx", "encoder")
    tracking.log_metrics(numbers, model_id)
    for name, values in learned.curves.items():
        tracking.log_curve(name, values)
    tracking.log_comparison("NDCG at 10", report.comparison(judged, numbers), highlight=report.NAME)
    tracking.log_model_card(card)
    return uri
