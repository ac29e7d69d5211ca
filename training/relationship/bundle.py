"""What a relationship training leaves behind: the bundle's record, its folder, and what MLflow is told.

Belongs here: the record, writing it, logging. Does not belong here: training (`train.py`, `train_uplift.py`).
"""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Mapping

import msgspec

from training import tracking
from training.config import BUNDLE_FILE, ConfigError, TrainingConfig
from training.evaluation.statistics import Interval


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a training leaves behind, beside its files.

    Attributes:
        family: ``customers``, ``intent`` or ``uplift``.
        run_id: MLflow run.
        model_uri: MLflow LoggedModel by name.
        metrics: Final numbers.
        config: The config it was trained from.
        files: Role to path below the bundle's folder.
        details: What a reader must know, such as feature names.
        lake: Delta versions that were read.
    """

    family: str
    run_id: str
    model_uri: dict[str, str]
    metrics: dict[str, float]
    config: dict[str, object]
    files: dict[str, str]
    details: dict[str, object]
    lake: dict[str, int]


def read_record(folder: pathlib.Path) -> Record:
    """Read a finished training's record.

    Raises:
        ConfigError: The folder holds none.
    """
    path = folder / BUNDLE_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: {error}; expected the bundle of a relationship training") from error


def stage(config: TrainingConfig) -> pathlib.Path:
    """An empty folder beside the bundle's, to be renamed when all is written."""
    out = pathlib.Path(config.out)
    staged = out.with_name(f".tmp-{out.name}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    return staged


def finish(config: TrainingConfig, staged: pathlib.Path, record: Record) -> Record:
    """Write the record, which marks the bundle as complete, and put the folder in its place."""
    out = pathlib.Path(config.out)
    (staged / BUNDLE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
    shutil.rmtree(out, ignore_errors=True)
    staged.rename(out)
    return read_record(out)


def log_results(
    staged: pathlib.Path, graphs: Mapping[str, str], numbers: Mapping[str, Interval], text: str
) -> dict[str, str]:
    """Log graphs, numbers and the card; the card also goes to the bundle."""
    (staged / "model_card.md").write_text(text)
    uris, ids = {}, []
    for name, file in graphs.items():
        model_id, uris[name] = tracking.log_onnx(staged / file, name)
        ids.append(model_id)
    tracking.log_metrics({name: _logged(value) for name, value in numbers.items()}, ids[0] if ids else None)
    tracking.log_model_card(text)
    return uris


def _logged(value: Interval) -> float | tuple[float, float, float]:
    exact = value.low == value.high == value.value
    return value.value if exact else (value.value, value.low, value.high)


def flat(numbers: Mapping[str, Interval]) -> dict[str, float]:
    """One number per name, with intervals spread as `tracking.flatten_intervals` does."""
    return tracking.flatten_intervals({name: _logged(value) for name, value in numbers.items()})
