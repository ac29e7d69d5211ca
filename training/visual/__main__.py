"""``python -m training.visual FAMILY --config FILE``: one config in, one bundle out.

Exit codes are those of ``python -m training``: 0 written, 2 the command or the config cannot be used, 130
interrupted.

Belongs here: the command line. Does not belong here: training itself (each family's `*_train.py`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import sys
from collections.abc import Sequence

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from training.config import ConfigError
from training.reporting import reporting

FAMILIES = {
    "detector": "finds and boxes what can be worn",
    "embedder": "one vector per picture: similar products are near one another",
    "text": "one vector per sentence, in the embedder's space",
    "outfit": "what goes with what",
}
"""Each is trained by ``training/visual/FAMILY_train.py``: ``run(config file, progress) -> Bundle``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.visual", description="Train a visual model from one config."
    )
    families = parser.add_subparsers(dest="family", required=True, metavar="FAMILY")
    for name, text in FAMILIES.items():
        family = families.add_parser(name, help=text, description=f"Train the {name}: {text}.")
        family.add_argument("--config", type=pathlib.Path, required=True, metavar="FILE", help="JSON config")
        family.add_argument("--quiet", action="store_true", help="print no progress")
    given = parser.parse_args(arguments)
    try:
        with reporting(given.quiet) as (progress, report):
            module = importlib.import_module(f"training.visual.{given.family}_train")
            report(module.run(given.config, progress))
    except ConfigError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("training: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    import torch

    # Vectors near zero cost tenfold otherwise. It holds for the whole process, so only for one of its own.
    torch.set_flush_denormal(True)
    sys.exit(main())
