"""``python -m training FAMILY --config FILE``: one config in, one bundle out.

Exit codes: 0 the bundle is written, 1 training failed, 2 the command or the config cannot be used, 130
interrupted. Started by `torchrun`, the encoder's processes learn together and the first one writes.
With DAGSTER_PIPES_CONTEXT in the environment, progress and metrics are also reported to Dagster.

Belongs here: the command line. Does not belong here: training itself (each family's `train.py`).
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

# Threads that spin while they wait are ten times slower on a shared machine; libgomp reads this when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from training.config import Bundle, ConfigError, EncoderConfig, RankerConfig, read_config
from training.reporting import Progress, reporting


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    given = _parser().parse_args(arguments)
    try:
        if int(os.environ.get("RANK", "0")) > 0:
            _follow(given.family, given.config)
            return 0
        with reporting(given.quiet) as (progress, report):
            report(_train(given.family, given.config, progress))
    except ConfigError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("training: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train one model family from one config."
    )
    families = parser.add_subparsers(dest="family", required=True, metavar="FAMILY")
    for name, text in (
        ("encoder", "the continuum encoder: a sequence model over all events of a customer"),
        ("ranker", "the ranker: candidates of all sources in order, on Feast features"),
    ):
        family = families.add_parser(name, help=text, description=f"Train {text}.")
        family.add_argument("--config", type=pathlib.Path, required=True, metavar="FILE", help="JSON config")
        family.add_argument("--quiet", action="store_true", help="print no progress")
    return parser


def _follow(family: str, path: pathlib.Path) -> None:
    """Learn along with the process that writes."""
    if family != "encoder":
        raise ConfigError(f"`{family}` learns in one process; expected no torchrun")
    from training.continuum.ranks import leave
    from training.continuum.train import follow

    follow(read_config(path, EncoderConfig))
    leave()


def _train(family: str, path: pathlib.Path, progress: Progress) -> Bundle:
    if family == "encoder":
        config = read_config(path, EncoderConfig)
        from training.continuum.ranks import leave
        from training.continuum.train import train as train_encoder

        try:
            return train_encoder(config, progress)
        finally:
            leave()
    ranker = read_config(path, RankerConfig)
    from training.ranker.train import train as train_ranker

    return train_ranker(ranker, progress)


if __name__ == "__main__":
    sys.exit(main())
