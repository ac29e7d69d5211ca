"""The visual models by the protocols of the data folder, in parts: `continuum bench visual --part NAME`.

A part trains what it needs with its config (or takes a finished bundle of that config, or one that `--bundle
NAME=FOLDER` points to), and measures the exported graph on the split named for reporting. What a part measured is
kept below CONTINUUM_HOME under a key over graph, data and the meaning of the code that measures, so that a call
that was cut off goes on, and a record is put together from real runs only.

Belongs here: parts, what is kept of them. Does not belong here: what a part does (`visual_*.py`).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from contracts.settings import ROOT, read_settings
from tests.benchmarks.meaning import meaning

Progress = Callable[[str], None]
Outcome = tuple[dict[str, Any], dict[str, Any]]

PARTS: dict[str, tuple[str, str]] = {
    "grocery": ("tests.benchmarks.visual_embedding", "grocery"),
    "products": ("tests.benchmarks.visual_embedding", "products"),
    "phone": ("tests.benchmarks.visual_embedding", "phone"),
    "names": ("tests.benchmarks.visual_embedding", "names"),
    "street": ("tests.benchmarks.visual_detection", "street"),
    "drawn": ("tests.benchmarks.visual_detection", "drawn"),
    "outfit": ("tests.benchmarks.visual_detection", "outfit"),
}
"""Part -> module and function: ``function(bench) -> (measured, setup)``."""

QUICK_PARTS = ("grocery",)
BEGINNINGS = {part: (f"{part}_",) for part in PARTS} | {"names": ("name_to_picture_",)}
"""Part -> how its metrics begin: a kept run holds its parts' latest measurement, not all made at once."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a part is given.

    Attributes:
        quick: Whether a small version is wanted.
        home: CONTINUUM_HOME.
        data: The data folder.
        progress: Told of everything that takes long.
        bundles: Folders to take bundles from, by name.
        fresh: Measure again what was measured before.
    """

    quick: bool
    home: pathlib.Path
    data: pathlib.Path
    progress: Progress
    bundles: dict[str, pathlib.Path]
    fresh: bool = False

    def folder(self, name: str) -> pathlib.Path:
        """Where the bundle of that name lies, or will."""
        own = self.home / "benchmarks" / "visual" / (f"{name}-quick" if self.quick else name)
        return self.bundles.get(name, own)

    def kept(
        self, name: str, parts: Iterable[Any], sources: Iterable[str], measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """What was measured under that name before, if parts and sources are the same; else measured now.

        Args:
            name: Of what is measured.
            parts: What JSON can write: hashes of graphs and data, configs.
            sources: Files of the code that measures, below the project's root.
            measure: Does it.
        """
        digest = hashlib.sha256(json.dumps(list(parts), sort_keys=True, default=str).encode())
        for source in sorted(sources):
            digest.update(f"{source} {meaning(ROOT / source)}".encode())
        path = self.home / "benchmarks" / "visual" / f"{name}-{digest.hexdigest()[:16]}.json"
        if path.is_file() and not self.fresh:
            self.progress(f"{name}: measured before")
            return json.loads(path.read_text())
        made = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}")
        staged.write_text(json.dumps(made, indent=1))
        staged.rename(path)
        return made


def options(words: Sequence[str]) -> argparse.Namespace:
    """The bench's own options."""
    parser = argparse.ArgumentParser("continuum bench visual", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--part", action="append", choices=sorted(PARTS), help="only this one; may be repeated"
    )
    parser.add_argument(
        "--bundle", action="append", default=[], metavar="NAME=FOLDER", help="measure a finished bundle"
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    return parser.parse_args(list(words))


def opened(quick: bool, progress: Progress, asked: argparse.Namespace) -> Bench:
    """What parts are given.

    Raises:
        ValueError: There is no data folder, or a bundle is not given as NAME=FOLDER.
    """
    settings = read_settings()
    if settings.data is None:
        raise ValueError(
            "CONTINUUM_DATA is not set; expected the folder with grocery-photos and the other sets"
        )
    bundles = {}
    for given in asked.bundle:
        name, sign, folder = given.partition("=")
        if not sign:
            raise ValueError(f"--bundle is '{given}'; expected NAME=FOLDER")
        bundles[name] = pathlib.Path(folder)
    return Bench(quick, settings.home, settings.data, progress, bundles, asked.fresh)


def run(quick: bool, progress: Progress, words: Sequence[str] = ()) -> dict[str, Any]:
    """Measure; see `tests/benchmarks/report.py` for what becomes of the numbers.

    Raises:
        ValueError: There is no data folder, or a bundle is not given as NAME=FOLDER.
    """
    asked = options(words)
    bench = opened(quick, progress, asked)
    measured: dict[str, Any] = {}
    setup: dict[str, Any] = {}
    for part in asked.part or (QUICK_PARTS if quick else PARTS):
        module, function = PARTS[part]
        numbers, about = getattr(importlib.import_module(module), function)(bench)
        alone = {name: numbers.pop(name) for name in ("self_first",) if name in numbers}
        measured |= numbers
        # A catalogue that finds itself is asked of every part that has one: the worst counts.
        measured |= {name: min(value, measured.get(name, value)) for name, value in alone.items()}
        setup |= {f"{part}_{name}": value for name, value in about.items()}
    left = {part: words for part, words in BEGINNINGS.items() if asked.part and part not in asked.part}
    if asked.part and "self_first" not in measured:
        left["catalogue"] = ("self_first",)
    return {"measured": measured, "setup": setup, "left": left}
