"""``python -m training.visual FAMILY --config FILE``: one config in, one bundle out.

Exit codes are those of ``python -m training``: 0 written, 2 the command, the config or the pictures cannot be used.

Belongs here: the command line. Does not belong here: training itself (`train_<family>.py`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import sys
from collections.abc import Sequence

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from training.config import ConfigError, read_config
from training.reporting import reporting
from training.visual.config import DetectorConfig, EmbedderConfig, OutfitConfig, TextConfig, VisualConfig
from training.visual.pictures import PictureSetError

FAMILIES: dict[str, tuple[type[VisualConfig], str]] = {
    "detector": (DetectorConfig, "finds and boxes the items of a photo"),
    "embedder": (EmbedderConfig, "pictures of one product to near vectors, with attributes"),
    "text": (TextConfig, "words into the embedder's space"),
    "outfit": (OutfitConfig, "what goes together"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    given = _parser().parse_args(arguments)
    kind, _ = FAMILIES[given.family]
    try:
        config = read_config(given.config, kind)
        module = importlib.import_module(f"training.visual.train_{given.family}")
        with reporting(given.quiet) as (progress, report):
            report(module.train(config, progress))
    except (ConfigError, PictureSetError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("training: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.visual", description="Train a visual model from one config."
    )
    families = parser.add_subparsers(dest="family", required=True, metavar="FAMILY")
    for name, (_, text) in FAMILIES.items():
        family = families.add_parser(name, help=text, description=f"{name}: {text}.")
        family.add_argument("--config", type=pathlib.Path, required=True, metavar="FILE", help="JSON config")
        family.add_argument("--quiet", action="store_true", help="print no progress")
    return parser


if __name__ == "__main__":
    sys.exit(main())
