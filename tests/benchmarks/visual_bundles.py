"""Bundles of the visual bench: where a config writes to, and whether a folder holds what a config asks for.

Belongs here: what the parts share about their trainings. Does not belong here: configs (`visual_*.py`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import msgspec

from tests.benchmarks.visual import Bench
from training.config import Bundle, ConfigError, read_bundle

SEED = 7
PLACES = ("home", "out", "tracking_uri", "threads", "experiment", "tags")
"""Keys of a config that do not change what is learned."""


def places(bench: Bench, folder: pathlib.Path, name: str) -> dict[str, Any]:
    """What every config of the bench is told."""
    tracking = bench.home / "mlflow" / "mlflow.db"
    tracking.parent.mkdir(parents=True, exist_ok=True)
    return {
        "home": str(bench.home), "out": str(folder), "tracking_uri": f"sqlite:///{tracking}",
        "experiment": f"bench-visual-{name}", "seed": SEED,
    }  # fmt: skip


def finished(
    folder: pathlib.Path,
    config: msgspec.Struct,
    forget: Callable[[dict[str, Any]], None] = lambda told: None,
) -> Bundle | None:
    """The bundle in a folder, if it is of this config.

    Args:
        folder: The bundle's.
        config: What is asked for.
        forget: Takes out of a config what does not matter besides `PLACES`.
    """
    try:
        bundle = read_bundle(folder)
        told = msgspec.to_builtins(msgspec.convert(bundle.config, type(config)))
    except (ConfigError, msgspec.ValidationError):
        return None
    want = msgspec.to_builtins(config)
    for one in (told, want):
        for key in PLACES:
            one.pop(key)
        forget(one)
    return bundle if told == want else None
