"""Runs that a long bench has finished, kept so that it can go on where it stopped.

A run is one model with one seed on one task. Its key covers the task's split, the run's config and the meaning of
the code behind it (syntax trees without docstrings, so that words may change); whatever of these changes, the
run is made again. Belongs here: keys and files. Does not belong here: what is run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.benchmarks.meaning import meaning

ROOT = pathlib.Path(__file__).resolve().parents[2]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        answers: int64[R, 20] best items of each request.
        facts: Seconds, best epoch and the like.
        cached: Whether it was made by an earlier call.
    """

    answers: Ints
    facts: dict[str, Any]
    cached: bool = False


@dataclasses.dataclass(frozen=True)
class Cache:
    """Runs under one folder.

    Attributes:
        folder: Below CONTINUUM_HOME.
        fresh: Make every run again.
    """

    folder: pathlib.Path
    fresh: bool = False

    def run(self, name: str, key: str, make: Callable[[], Run]) -> Run:
        """The kept run of that name and key, or a new one."""
        path = self.folder / f"{name}-{key}.npz"
        if path.is_file() and not self.fresh:
            with np.load(path, allow_pickle=False) as file:
                return Run(file["answers"].astype(np.int64), json.loads(str(file["facts"])), cached=True)
        made = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{os.getpid()}-{path.name}")
        np.savez_compressed(staged, answers=made.answers.astype(np.int32), facts=json.dumps(made.facts))
        staged.rename(path)
        return made


def key_of(parts: Iterable[Any], sources: Iterable[str]) -> str:
    """Key of a run.

    Args:
        parts: What JSON can write: split, config, seed.
        sources: Files that make the run, below the project's root.
    """
    digest = hashlib.sha256(json.dumps(list(parts), sort_keys=True, default=str).encode())
    for name in sorted(sources):
        digest.update(f"{name} {meaning(ROOT / name)}".encode())
    return digest.hexdigest()[:16]
