"""What the relationship models say of each customer, put together: feature rows, and a file for the server.

Every family that was trained leaves its answers for all customers in its bundle; here they become one row per customer
in the feature table `customer_prediction` (`contracts.predictions`) and one file beside the overview. A family that was
not trained, or had nothing to learn from, leaves its columns null.

Belongs here: joining answers, storing, publishing. Does not belong here: predicting (`training/relationship`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import pathlib
import uuid
from typing import TYPE_CHECKING, Any

from contracts.predictions import PREDICTION_COLUMNS, RFM_SEGMENTS
from contracts.retailer import Retailer
from contracts.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Floats = npt.NDArray[np.float64]

FAMILIES = ("customers", "segments", "contacts", "sessions", "visits")
OUTLOOK_FILE = "outlook.npz"
"""Where the server looks for it, below ``Settings.overview`` (`serving/profiles/outlook.py`)."""
INTENT_FILE = "intent.onnx"
"""The graph that the server asks about the session under way, at the same place (`serving/profiles/intent.py`)."""
EXPECTATIONS = "expectations.npz"


class NothingPredictedError(RuntimeError):
    """No family of models has been trained here; the message lists the reasons."""


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What one run stored.

    Attributes:
        customers: How many.
        as_of: Latest moment of data that a prediction rests on.
        version: Of the feature table.
        missing: Family to the reason why it says nothing.
        names: Segment names by cut.
    """

    customers: int
    as_of: dt.datetime
    version: int
    missing: dict[str, str]
    names: dict[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """Answers of all families.

    Attributes:
        customers: str[C], ascending.
        columns: float64[C] by name of `PREDICTION_COLUMNS`, NaN for nothing.
        as_of_us: Latest moment, microseconds.
        names: Segment names by cut (``behaviour``, ``taste``).
        missing: Family to the reason why it says nothing.
        seen_us: int64[C], when the session behind ``p_intent`` had its last act, -1 for none.
    """

    customers: npt.NDArray[np.str_]
    columns: dict[str, Floats]
    as_of_us: int
    names: dict[str, tuple[str, ...]]
    missing: dict[str, str]
    seen_us: npt.NDArray[np.int64]


def store_predictions(settings: Settings, retailer: Retailer) -> Predicted:
    """Join the newest answers, store them as feature rows, publish them for the server.

    A row is valid from the moment that the predictions were made for; where the shop's clock is the wall's, from now
    on, since nobody could know it earlier.

    Raises:
        NothingPredictedError: No family says anything.
    """
    from feature_repo.build import store_rows
    from feature_repo.catalog import PREDICTIONS

    answers = read_answers(settings)
    as_of = dt.datetime.fromtimestamp(answers.as_of_us / 1e6, dt.UTC)
    valid_from = as_of if retailer.clock == "stream" else max(as_of, dt.datetime.now(dt.UTC))
    table = rows_of(answers, valid_from)
    day = valid_from.date()
    path = settings.features / PREDICTIONS.name
    _, version = store_rows(path, PREDICTIONS, table.to_reader(), day, day)
    publish(settings, answers)
    return Predicted(len(answers.customers), as_of, version, answers.missing, answers.names)


def read_answers(settings: Settings) -> Answers:
    """The newest answers of every family.

    Raises:
        NothingPredictedError: No family says anything.
    """
    import numpy as np

    parts: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for family in FAMILIES:
        found = _expectations(settings, family)
        if isinstance(found, str):
            missing[family] = found
        else:
            parts[family] = found
    if not parts:
        reasons = "; ".join(f"{family}: {reason}" for family, reason in missing.items())
        raise NothingPredictedError(f"nothing is predicted: {reasons}")
    customers = np.unique(np.concatenate([part["customers"].astype(np.str_) for part in parts.values()]))
    columns = {name: np.full(len(customers), np.nan) for name in PREDICTION_COLUMNS}
    seen = np.full(len(customers), -1, np.int64)
    names: dict[str, tuple[str, ...]] = {}
    for family, part in parts.items():
        place = np.searchsorted(customers, part["customers"].astype(np.str_))
        for name, values in _columns(family, part).items():
            columns[name][place] = values
        if family == "sessions":
            seen[place] = part["seen_us"]
        if family == "segments":
            names = {cut: tuple(part[f"{cut}_names"].tolist()) for cut in ("behaviour", "taste")}
    as_of = max(int(part["as_of_us"]) for part in parts.values())
    return Answers(customers, columns, as_of, names, missing, seen)


def _expectations(settings: Settings, family: str) -> dict[str, Any] | str:
    """A family's answers, or why there are none."""
    import numpy as np

    from orchestration.training_jobs import latest_bundle

    try:
        folder = latest_bundle(settings, family)
    except FileNotFoundError:
        return "not trained here"
    path = folder / EXPECTATIONS
    if not path.is_file():
        record = json.loads((folder / "bundle.json").read_text())
        return str(record["details"].get("nothing", "its bundle holds no answers"))
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _columns(family: str, part: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    if family == "customers":
        return {
            "p_churn": part["churn"], "p_churn_days": part["churn_days"], "p_value": part["value"],
            "p_value_days": part["value_days"],
        }  # fmt: skip
    if family == "segments":
        place = {name: float(number) for number, name in enumerate(RFM_SEGMENTS)}
        return {
            "p_rfm": np.array([place.get(str(name), np.nan) for name in part["rfm"]]),
            **{f"p_{cut}": np.where(part[cut] < 0, np.nan, part[cut]) for cut in ("behaviour", "taste")},
        }
    if family == "contacts":
        return {f"p_{name}": part[name] for name in part if f"p_{name}" in PREDICTION_COLUMNS}
    if family == "sessions":
        return {"p_intent": part["intent"]}
    days = np.asarray(part["visit_days"], np.float64)
    found: dict[str, Any] = {
        "p_visit_days": np.where(np.isfinite(days), days, np.nan), "p_visit_soon": part["visit_soon"],
        "p_visit_soon_days": part["within_days"],
    }  # fmt: skip
    for kind, titles in (("channel", "channels"), ("action", "actions")):
        for number, title in enumerate(part[titles].tolist()):
            if f"p_{kind}_{title}" in PREDICTION_COLUMNS:
                found[f"p_{kind}_{title}"] = part[kind][:, number]
    return found


def rows_of(answers: Answers, valid_from: dt.datetime) -> pa.Table:
    """Answers as rows of the view."""
    import pyarrow as pa

    from feature_repo.catalog import PREDICTIONS

    size = len(answers.customers)
    return pa.table(
        {
            "customer_id": pa.array(answers.customers.tolist(), pa.string()),
            "event_timestamp": pa.array(
                [valid_from] * size, PREDICTIONS.schema.field("event_timestamp").type
            ),
            **{name: pa.array(answers.columns[name], from_pandas=True) for name in PREDICTION_COLUMNS},
            "day": pa.array([valid_from.date()] * size, pa.date32()),
        },
        schema=PREDICTIONS.schema,
    )


def publish(settings: Settings, answers: Answers) -> pathlib.Path:
    """Write the server's file, and the intent graph beside it, each in one step."""
    import shutil

    import numpy as np

    settings.overview.mkdir(parents=True, exist_ok=True)
    target = settings.overview / OUTLOOK_FILE
    staged = settings.overview / f".{uuid.uuid4().hex}.npz"
    np.savez_compressed(
        staged, customers=answers.customers, as_of_us=answers.as_of_us, seen_us=answers.seen_us,
        **{name: values.astype(np.float32) for name, values in answers.columns.items()},
        **{f"{cut}_names": np.array(answers.names.get(cut, ()), np.str_) for cut in ("behaviour", "taste")},
    )  # fmt: skip
    staged.replace(target)
    if "sessions" not in answers.missing:
        from orchestration.training_jobs import latest_bundle

        copied = settings.overview / f".{uuid.uuid4().hex}"
        shutil.copyfile(latest_bundle(settings, "sessions") / INTENT_FILE, copied)
        copied.replace(settings.overview / INTENT_FILE)
    return target


def to_feast(settings: Settings, as_of: dt.datetime) -> list[dict[str, Any]]:
    """Put the view into Feast's registry and its newest rows into the online store."""
    from feature_repo import online
    from feature_repo.catalog import PREDICTIONS

    online.apply(settings)
    start = as_of - dt.timedelta(days=1)
    return online.materialize(settings, start, as_of + dt.timedelta(days=1), [PREDICTIONS.name])
