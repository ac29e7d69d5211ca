"""``python -m training.rehearsal --events N --out FOLDER``: simulate a shop and write it as Parquet.

Exit codes: 0 written, 2 the command or a knob cannot be used, 130 interrupted.

Belongs here: the command line. Does not belong here: the simulation.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

import msgspec

from training.rehearsal import AtelierConfig, RehearsalError, simulate
from training.rehearsal.config import checked, for_events
from training.rehearsal.writing import write


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.rehearsal",
        description="Simulate a fashion shop with known truth and write its tables as Parquet.",
    )
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--events", type=int, metavar="N", help="about how many events")
    size.add_argument("--shoppers", type=int, metavar="N", help="how many people")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--seed", type=int, metavar="N", help="of every random number")
    parser.add_argument("--days", type=int, metavar="N", help="length of the simulation")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KNOB=VALUE", help="any other field of AtelierConfig"
    )
    parser.add_argument(
        "--parts", type=int, default=1, metavar="N",
        help="so many shops of that size with other people, one folder each (beyond a million events)",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    try:
        knobs = _knobs(given)
        config = for_events(given.events, **knobs) if given.events is not None else checked(knobs)
        if given.parts < 1:
            raise RehearsalError(f"--parts is {given.parts}; expected at least 1")
        for part in range(given.parts):
            if given.parts == 1:
                _make(config, given.out)
                continue
            knobs = {"seed": config.seed + part, "namespace": f"{config.namespace}p{part}"}
            _make(msgspec.structs.replace(config, **knobs), given.out / f"part-{part:04d}")
    except RehearsalError as error:
        print(f"rehearsal: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rehearsal: interrupted", file=sys.stderr)
        return 130
    return 0


def _make(config: AtelierConfig, out: pathlib.Path) -> None:
    begun = time.perf_counter()
    shop = simulate(config)
    spent = time.perf_counter() - begun
    folder = write(shop, out)
    print(
        f"{shop.events.num_rows:,} simulated events of {config.shoppers:,} shoppers in {spent:.1f} s: {folder}"
    )


def _knobs(given: argparse.Namespace) -> dict[str, object]:
    knobs: dict[str, object] = {}
    for text in given.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise RehearsalError(f"--set is '{text}'; expected KNOB=VALUE")
        knobs[name] = tuple(value.split(",")) if name == "silenced" else value
    for name in ("shoppers", "seed", "days"):
        if getattr(given, name) is not None:
            knobs[name] = getattr(given, name)
    return knobs


if __name__ == "__main__":
    sys.exit(main())
