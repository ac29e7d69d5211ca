"""A retailer's own pictures: a CSV beside a folder, or a data set of a hub by its name.

Belongs here: the generic layouts. Does not belong here: the layouts of known sets (`pictures.py`).
"""

from __future__ import annotations

import importlib
import pathlib
from typing import Any

from training.visual.pictures import (
    LABELS,
    Box,
    Picture,
    PictureSet,
    PictureSetError,
    find_files,
    known,
    read_table,
)

TABLE_OPTIONS = ("table", "photos", "file", "split", "test", *LABELS)
HUB_OPTIONS = ("image", "subset", "revision", "split", *LABELS)


def open_table(root: pathlib.Path, options: dict[str, str]) -> PictureSet:
    """A CSV with one row per picture, beside a zip or folder of photos.

    Options: ``table`` (name of the CSV, ``pictures.csv``), ``photos`` (zip or folder, ``photos.zip`` or
    ``photos``), ``file`` (column with the file's name below it, ``file``), ``split`` (column that says which rows
    are for reporting) and ``test`` (its value there, ``test``); and per label the name of its column where that is
    not the label's own. A file may stand in several rows if ``left, top, right, bottom`` (fractions) box its items.

    Raises:
        PictureSetError: The folder is not so.
    """
    _check("table", options, TABLE_OPTIONS)
    photos = find_files(root, *([options["photos"]] if "photos" in options else ["photos.zip", "photos"]))
    column, split = options.get("file", "file"), options.get("split", "split")
    named = tuple(options[name] for name in (*LABELS, "split") if name in options)
    rows: dict[str, Picture] = {}
    for row in read_table(root, options.get("table", "pictures.csv"), columns=(column, *named)):
        key = row[column]
        labels = known({name: row.get(options.get(name, name)) for name in LABELS})
        part = "test" if row.get(split, "") == options.get("test", "test") else "train"
        boxes = (*(rows[key].boxes if key in rows else ()), *_boxes(row, labels))
        rows[key] = Picture(key, labels, part, boxes)
    return PictureSet("table", list(rows.values()), photos.read)


def open_hub(name: str, options: dict[str, str]) -> PictureSet:
    """A data set of the Hugging Face hub in its Parquet form, where pictures are structs with their bytes.

    ``name`` is ``owner/name``, fetched with the package ``huggingface_hub`` (optional, needs a network), or a folder
    that holds the Parquet files. Options: ``image`` (column, ``image``), ``subset`` (only files below a folder of
    that name), ``revision``, ``split`` (the file-name prefix that is for reporting, ``test``), and per label the
    name of its column.

    Raises:
        PictureSetError: The package is missing, the name is unknown, or a column is.
    """
    import pyarrow.parquet as pq

    _check("hub", options, HUB_OPTIONS)
    root = pathlib.Path(name)
    if not root.is_dir():
        root = _fetch(name, options)
    files = sorted(p for p in root.rglob("*.parquet") if options.get("subset", "") in p.parent.as_posix())
    if not files:
        raise PictureSetError(f"hub data set {name} has no Parquet files; expected pictures in that form")
    image = options.get("image", "image")
    rows: list[Picture] = []
    places: dict[str, tuple[pathlib.Path, int, int]] = {}
    for path in files:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [n for n in (image, *(options[x] for x in LABELS if x in options)) if n not in names]
            if missing:
                raise PictureSetError(f"{name}: no column {missing[0]}; expected one of: {', '.join(names)}")
            columns = {label: options.get(label, label) for label in LABELS}
            present = sorted({c for c in columns.values() if c in names and c != image})
            reported = path.name.startswith(options.get("split", "test"))
            for group in range(file.num_row_groups):
                table = (
                    file.read_row_group(group, columns=present).to_pylist()
                    if present
                    else [{}] * file.metadata.row_group(group).num_rows
                )
                for place, row in enumerate(table):
                    key = f"{path.stem}-{group}-{place}"
                    labels = known({k: _text(row.get(v)) for k, v in columns.items()})
                    rows.append(Picture(key, labels, "test" if reported else "train"))
                    places[key] = (path, group, place)
    return PictureSet("hub", rows, _ParquetReader(image, places))


class _ParquetReader:
    """Pictures by key; one row group is held at a time."""

    def __init__(self, column: str, places: dict[str, tuple[pathlib.Path, int, int]]) -> None:
        self._column = column
        self._places = places
        self._held: tuple[pathlib.Path, int] | None = None
        self._group: list[Any] = []

    def __call__(self, key: str) -> bytes:
        import pyarrow.parquet as pq

        path, group, place = self._places[key]
        if self._held != (path, group):
            with pq.ParquetFile(path) as file:
                self._group = file.read_row_group(group, columns=[self._column])[self._column].to_pylist()
            self._held = (path, group)
        value = self._group[place]
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise KeyError(f"picture {key} has no bytes in its file")
        return content


def _fetch(name: str, options: dict[str, str]) -> pathlib.Path:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise PictureSetError(
            f"data set {name} lies on a hub, which needs the package huggingface_hub; expected it to be installed, "
            "or a folder with the Parquet files"
        ) from error
    try:
        return pathlib.Path(
            hub.snapshot_download(
                name,
                repo_type="dataset",
                revision=options.get("revision") or None,
                allow_patterns=["*.parquet", "**/*.parquet"],
            )
        )
    except Exception as error:  # Network, names and rights fail in many types there.
        raise PictureSetError(f"data set {name} cannot be fetched: {error}") from error


def _boxes(row: dict[str, str], labels: dict[str, str]) -> tuple[Box, ...]:
    edges = [row.get(name, "") for name in ("left", "top", "right", "bottom")]
    if not all(edges):
        return ()
    try:
        left, top, right, bottom = (float(edge) for edge in edges)
    except ValueError as error:
        raise PictureSetError(f"a box is {edges}; expected four numbers") from error
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise PictureSetError(
            f"a box is {edges}; expected fractions of the picture, left < right, top < bottom"
        )
    return (Box(labels.get("type", ""), left, top, right, bottom, labels.get("product_id", "")),)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _check(layout: str, options: dict[str, str], known_names: tuple[str, ...]) -> None:
    for name in options:
        if name not in known_names:
            raise PictureSetError(
                f"layout {layout} has no option '{name}'; expected some of: {', '.join(known_names)}"
            )
