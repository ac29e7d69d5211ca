"""What runs on a public set, by name, with the config that was chosen on its validation requests.

Belongs here: configs and how each model is made. Does not belong here: comparing (`sequences.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import torch

from tests.benchmarks import sequences_peers
from tests.benchmarks.sequences_cache import Run
from tests.benchmarks.sequences_peers import PeerParams
from training.config import EncoderParams
from training.continuum.cold import LevelScorer
from training.continuum.model import Encoder
from training.continuum.public import EncoderScorer, learn
from training.evaluation import sequence_baselines as simple
from training.evaluation.protocol import (
    Ints,
    Requests,
    Scorer,
    Task,
    answer,
    answers,
    judge,
    ndcg_of_ranks,
    ranks,
)

Progress = Callable[[str], None]

ENCODER_SOURCES = (
    "training/continuum/model.py", "training/continuum/loss.py", "training/continuum/fit.py",
    "training/continuum/blocks.py", "training/continuum/memory.py", "training/continuum/pairs.py",
    "training/continuum/ensemble.py", "training/continuum/trend.py",
    "training/continuum/batches.py", "training/continuum/singles.py", "training/continuum/start.py",
    "training/continuum/public.py", "training/evaluation/protocol.py",
)  # fmt: skip
COLD_SOURCES = (*ENCODER_SOURCES, "training/continuum/cold.py")
PEER_SOURCES = (
    "tests/benchmarks/sequences_peers.py",
    "training/continuum/singles.py",
    "training/evaluation/protocol.py",
)
SIMPLE_SOURCES = ("training/evaluation/sequence_baselines.py", "training/evaluation/protocol.py")

HISTORIES = EncoderParams(
    dim=128, heads=2, blocks=1, length=50, dropout=0.5, expansion=2, time_bias=False, step_bias=32, pointer=False,
    item_bias=False, content=(), item_dropout=0.15, negatives=512, popular_negatives=0.0, logq=False,
    action_weight=0.0, customer_balance=0.0, stride=0.5, batch=256, epochs=14, patience=14, learning_rate=2e-3,
    weight_decay=0.0, validation_customers=5000, max_seconds=3600.0, learn_first=False, average=0.99,
    start="spectral", memory=100,
)  # fmt: skip
"""Users' histories, seen items left out. Chosen on the validation requests of amazon-beauty: in each batch part of the
items lives from attributes alone, which is also what makes items usable that were never seen."""

SESSIONS = msgspec.structs.replace(
    HISTORIES, dim=256, length=20, dropout=0.6, item_dropout=0.0, pointer=True, unit_items=True, item_bias=True, logq=True,
    negatives=3000, popular_negatives=0.5, batch=128, learning_rate=3e-3, average=0.995, epochs=4, patience=4,
)  # fmt: skip
"""Sessions, in which items come again; nothing is left out. Chosen on the validation sessions of yoochoose. With the
pointer the negatives have to be corrected for how rarely they are drawn: items of the session always count among the
rivals, so without it what is new is overrated (MRR@20 there 0.337 instead of 0.355). Many negatives and much dropout
go together: 512 and 0.2 gave NDCG@20 0.427 there, and were far too sure of repeated clicks; these give 0.438."""

COLD_EPOCHS = 3
"""Fewer do for items that are left out: what is learned last is what single items are worth."""

ENCODERS: dict[str, EncoderParams] = {
    "amazon-clothing": msgspec.structs.replace(HISTORIES, epochs=4),
    "yoochoose": msgspec.structs.replace(
        SESSIONS,
        memory_weights=(3.0, 3.0, 0.0),
        fade=0.2,
        trend=1.0,
        trend_fade=0.05,
        members=5,
        both_ways=2,
        label_weight=0.0,
    ),
    "diginetica": msgspec.structs.replace(
        SESSIONS,
        item_bias=False,
        dropout=0.5,
        batch=256,
        learning_rate=4e-3,
        epochs=4,
        memory_weights=(20.0, 20.0, 10.0),
    ),
}
"""Sets that were tuned apart. Without attributes, and with most items bought a few times only, more is learned by heart.
Sessions that state the memory's weights learn once, from everything, for all of their epochs. Both sets' weights were
chosen on their validation sessions. Yoochoose's few sessions are learned by heart, by each member in its own way: HR@20 of
three as one is 0.5 % and MRR@20 0.2 % above one's there, and with two of five members that learn both ways MRR@20 is 0.5 %
more. Demand of late adds 0.6 % and 0.3 % (a mean over three parts of the training sessions), a memory that fades and weighs
less 0.5 % of MRR@20. On 6,000 requests of diginetica's, MRR@20 is 0.178 without a memory, 0.184 with the best of pairs alone
(1, 20) and 0.190 with these; its epochs give NDCG@10 0.210, 0.224, 0.229, 0.229."""

EASE_RIDGE = {"users": 100.0, "sessions": 200.0}


@dataclasses.dataclass(frozen=True)
class Model:
    """One row of the table.

    Attributes:
        name: As in the record.
        seeded: Whether it is run with every seed.
        config: What its key covers.
        sources: Files that make it.
        make: Task, seed and progress to a scorer and facts.
    """

    name: str
    seeded: bool
    config: Any
    sources: tuple[str, ...]
    make: Callable[[Task, int, Progress], tuple[Scorer, dict[str, Any]]]


def encoder_params(task: Task) -> EncoderParams:
    """Config of the encoder for a set; sets that were not tuned take that of their kind."""
    params = ENCODERS.get(task.name, SESSIONS if task.sessions else HISTORIES)
    return params if task.tags is not None else msgspec.structs.replace(params, item_dropout=0.0)


def content_digest(task: Task) -> str:
    """Hash of the items' attributes, empty without any."""
    return "" if task.tags is None else hashlib.sha256(np.ascontiguousarray(task.tags).tobytes()).hexdigest()


def encoder(
    task: Task, params: EncoderParams, name: str = "encoder", *, content: bool = True, look: bool = False
) -> Model:
    """The product's encoder; on sessions it learns from all of them once the epochs are chosen.

    Args:
        task: Data and protocol.
        params: Its config.
        name: Of the row.
        content: Give items their attributes.
        look: Also note, after each epoch, the seconds so far and the quality on the test requests.
    """

    def make(task: Task, seed: int, progress: Progress) -> tuple[Scorer, dict[str, Any]]:
        looks = Looks(task, progress) if look else None
        final = task.sessions and params.memory_weights is not None
        found = learn(task, params, seed=seed, progress=progress, content=content, watch=looks, refit=final)
        facts = {
            "seconds": found.seconds, "best": found.best, "examples": found.examples,
            "curve": found.curves["validation_ndcg_at_10"], "threads": torch.get_num_threads(),
            "looks": looks.rows if looks else [], "memory": found.weighed,
        }  # fmt: skip
        if task.sessions and not final:
            whole = msgspec.structs.replace(params, epochs=max(1, found.best), memory_weights=found.weighed)
            found = learn(task, whole, seed=seed, progress=progress, content=content, refit=True)
        return EncoderScorer(found.encoder), facts

    return Model(
        name,
        True,
        [msgspec.to_builtins(params), content_digest(task) if content else ""],
        ENCODER_SOURCES,
        make,
    )


@dataclasses.dataclass
class Looks:
    """Quality on the test requests after each epoch; what looking takes is not counted.

    Attributes:
        task: Data and protocol.
        progress: Receives one line per epoch.
        rows: Seconds of training, seconds that the process got of the cores in it, NDCG at k.
    """

    task: Task
    progress: Progress
    rows: list[tuple[float, float, float]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        """Start counting."""
        self._mark, self._used = time.process_time(), 0.0

    def __call__(self, net: Encoder, seconds: float) -> None:
        """Look once."""
        self._used += time.process_time() - self._mark
        net.eval()
        places = ranks(EncoderScorer(net), self.task.test, filter_seen=not self.task.sessions)
        net.train()
        reached = ndcg_of_ranks(places, self.task.k)
        self.rows.append((seconds, self._used, reached))
        self.progress(
            f"test NDCG@{self.task.k} {reached:.4f} after {seconds:.0f} s, {self._used:.0f} s of the cores"
        )
        self._mark = time.process_time()


def models(task: Task, *, look: bool = False) -> list[Model]:
    """The encoder, then every baseline, cheap ones first."""
    return [encoder(task, encoder_params(task), look=look), *baselines(task)]


def baselines(task: Task) -> list[Model]:
    """Everything that the encoder is compared with in this process."""
    share = simple.RECENT if task.sessions else 1.0
    ridge = EASE_RIDGE["sessions" if task.sessions else "users"]
    made: list[tuple[str, Any, Callable[[Task], Scorer]]] = [
        ("recent_popularity", [share], lambda task: simple.recent_popularity(task.full, task.size, share)),
        (
            "item_knn",
            dataclasses.asdict(simple.KnnParams()),
            lambda task: simple.item_knn(task.full, task.size),
        ),
        ("vsknn", dataclasses.asdict(simple.VsknnParams()), lambda task: simple.vsknn(task.full, task.size)),
        ("ease", [ridge], lambda task: simple.ease(task.full, task.size, ridge)),
    ]
    found = [Model(name, False, config, SIMPLE_SOURCES, _timed(make)) for name, config, make in made]
    return [*found, *(_peer(name, params) for name, params in peers(task).items())]


def peers(task: Task) -> dict[str, PeerParams]:
    """Networks to compare with."""
    length = 20 if task.sessions else 50
    return {
        "gru4rec": PeerParams(model="gru4rec", loss="logq", blocks=1, dim=128, length=length, negatives=512),
        "sasrec_bce": PeerParams(loss="bce", dropout=0.5, length=length),
        "sasrec_softmax": PeerParams(loss="softmax", length=length),
    }


def _peer(name: str, params: PeerParams) -> Model:
    def make(task: Task, seed: int, progress: Progress) -> tuple[Scorer, dict[str, Any]]:
        scorer, facts = sequences_peers.train_peer(task, params, seed, progress)
        if task.sessions:
            whole = msgspec.structs.replace(params, epochs=max(1, facts["best"]))
            scorer, _ = sequences_peers.train_peer(task, whole, seed, progress, refit=True)
        return scorer, facts

    return Model(name, True, msgspec.to_builtins(params), PEER_SOURCES, make)


def _timed(make: Callable[[Task], Scorer]) -> Callable[[Task, int, Progress], tuple[Scorer, dict[str, Any]]]:
    def timed(task: Task, seed: int, progress: Progress) -> tuple[Scorer, dict[str, Any]]:
        started = time.monotonic()
        scorer = make(task)
        return scorer, {"seconds": time.monotonic() - started}

    return timed


def execute(model: Model, task: Task, asked: Requests, seed: int, progress: Progress) -> Run:
    """Make a model and let it answer, telling how far it is."""

    def say(line: str) -> None:
        progress(f"{model.name}, seed {seed}: {line}")

    scorer, facts = model.make(task, seed, say)
    parts, told = [], time.monotonic()
    for done, part in answers(scorer, asked, filter_seen=not task.sessions):
        parts.append(part)
        if time.monotonic() - told > 15:
            told = time.monotonic()
            say(f"{done} of {len(asked)} requests answered")
    found = np.concatenate(parts)
    reached = judge(found, asked.targets, task.k)
    say(", ".join(f"{name}@{task.k} {value.mean():.4f}" for name, value in reached.items()))
    return Run(found, facts)


def answer_all(scorer: Scorer, task: Task, asked: Requests) -> Ints:
    """Answers to all requests by the task's rule for seen items."""
    return answer(scorer, asked, filter_seen=not task.sessions)


def cold_encoder(task: Task, items: Ints, *, quick: bool = False) -> Model:
    """The encoder with items that live from their attributes alone."""
    # Items that were never seen have no pairs: a memory would only lift the others.
    params = msgspec.structs.replace(encoder_params(task), epochs=COLD_EPOCHS, memory=0)
    params = msgspec.structs.replace(params, epochs=2, dim=32) if quick else params

    def make(task: Task, seed: int, progress: Progress) -> tuple[Scorer, dict[str, Any]]:
        found = learn(task, params, seed=seed, progress=progress, cold=items)
        return LevelScorer(found.encoder), {"seconds": found.seconds, "best": found.best}

    return Model(
        "cold",
        True,
        [msgspec.to_builtins(params), items.tolist(), content_digest(task)],
        ENCODER_SOURCES,
        make,
    )


def ablations(task: Task) -> dict[str, Model]:
    """The encoder with one part changed at a time."""
    params = encoder_params(task)

    def changed(**parts: Any) -> Model:
        return encoder(task, msgspec.structs.replace(params, **parts))

    found = {
        "plain_block": changed(block="plain"),
        "bce_loss": changed(loss="bce"),
        "random_start": changed(start="random"),
        "mixed_logq_negatives": changed(popular_negatives=0.5, logq=True),
        "negatives_256": changed(negatives=256),
        "two_blocks": changed(blocks=2),
        "no_step_bias": changed(step_bias=0),
        "no_average": changed(average=0.0),
        "no_memory": changed(memory=0),
        "item_bias": changed(item_bias=not params.item_bias),
    }
    if params.members > 1:
        found["one_member"] = changed(members=1, both_ways=0)
    if params.fade:
        found["no_fade"] = changed(fade=0.0)
    if params.trend:
        found["no_trend"] = changed(trend=0.0)
    if params.both_ways:
        found["one_way"] = changed(both_ways=0)
    if task.tags is not None:
        found["no_content"] = encoder(task, params, content=False)
    return found
