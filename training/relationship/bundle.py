"""What a relationship training leaves behind: the bundle's record, its folder, and what MLflow is told.

Belongs here: the record, writing it, logging. Does not belong here: training (`train.py`, `train_uplift.py`).
"""

from __future__ import annotations

import datetime as dt
import pathlib
from collections.abc import Mapping

import mlflow
import msgspec

from training import tracking
from training.config import BUNDLE_FILE, ConfigError, TrainingConfig, put
from training.evaluation.statistics import Interval

EXPECTATIONS = "expectations.npz"
"""What the model says of every customer at the end of the data: ``customers`` U[C], columns [C], ``as_of_us``."""
NOTHING = "nothing"
"""Key of `Record.details` that says why nothing was learned."""
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a training leaves behind, beside its files.

    Attributes:
        family: ``customers``, ``intent``, ``uplift``, ``segments``, ``contacts``, ``sessions`` or ``visits``.
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


def finish(config: TrainingConfig, staged: pathlib.Path, record: Record) -> Record:
    """Write the record, which marks the bundle as complete, and put the folder in its place."""
    (staged / BUNDLE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
    return read_record(put(staged, config.out))


def nothing(config: TrainingConfig, staged: pathlib.Path, run_id: str, family: str, reason: str) -> Record:
    """A bundle without a model, for a shop whose data cannot teach one; readers find the reason, not silence."""
    mlflow.set_tag(NOTHING, reason)
    record = Record(
        family=family, run_id=run_id, model_uri={}, metrics={}, config=msgspec.to_builtins(config), files={},
        details={NOTHING: reason}, lake=dict(config.lake),
    )  # fmt: skip
    return finish(config, staged, record)


def days_of(at: dt.datetime) -> float:
    """Days since 1970."""
    return (at - EPOCH) / dt.timedelta(days=1)


def exact(value: float) -> Interval:
    """A number without an interval."""
    return Interval(value, value, value)


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
