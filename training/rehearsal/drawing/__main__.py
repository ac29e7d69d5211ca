"""``python -m training.rehearsal.drawing --out FOLDER``: draw the atelier's catalogue, and looks if wanted.

Exit codes: 0 drawn, 2 the command or a knob cannot be used.

Belongs here: the command line. Does not belong here: drawing.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from training.rehearsal import catalogue
from training.rehearsal.config import RehearsalError, checked
from training.rehearsal.drawing import write_catalogue, write_looks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.rehearsal.drawing",
        description="Draw the simulated shop's catalogue in the layout of fashion-products.",
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FOLDER")
    parser.add_argument("--products", type=int, default=2_400, metavar="N", help="size of the catalogue")
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="as the shop was simulated with")
    parser.add_argument(
        "--photos",
        type=pathlib.Path,
        metavar="FOLDER",
        help="real photos in the same layout, used as far as they go",
    )
    parser.add_argument("--looks", type=int, default=0, metavar="N", help="outfits with boxes")
    given = parser.parse_args(arguments)
    try:
        photos = None if given.photos is None else str(given.photos.resolve())
        config = checked({"products": given.products, "seed": given.seed, "photos": photos})
        rows = catalogue.table(catalogue.build(config)).to_pylist()
        pictures = write_catalogue(rows, given.out, photos_of=given.photos)
        boxes = write_looks(rows, given.out, given.looks, given.seed) if given.looks > 0 else 0
    except RehearsalError as error:
        print(f"drawing: {error}", file=sys.stderr)
        return 2
    what = "drawn products" if given.photos is None else "products"
    print(f"{pictures:,} {what} and {boxes:,} boxes in {given.looks:,} looks: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
