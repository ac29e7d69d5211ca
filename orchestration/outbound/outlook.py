"""What the models say of people, for conditions: churn, value, the next visit, effects of contacts, segments.

Read from the file that the job ``relationship`` publishes (`orchestration/lake/predictions.py`). A prediction is about
an account; a person's is that of their account with the most events.

Belongs here: columns of the file -> fields. Does not belong here: predicting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from contracts.events import CHANNELS
from contracts.outbound import OutboundError
from contracts.predictions import CONTACT_CHANNELS, VISIT_KINDS
from contracts.settings import Settings
from orchestration.lake.predictions import OUTLOOK_FILE
from orchestration.outbound.fields import PEOPLE

RUN = "run the job relationship"

NUMBERS = {
    "churn": "p_churn", "value": "p_value", "days_to_visit": "p_visit_days", "visit_soon": "p_visit_soon",
    "intent": "p_intent", **{f"uplift_{channel}": f"p_uplift_{channel}" for channel in CONTACT_CHANNELS},
}  # fmt: skip
CHOICES = {"likely_channel": ("p_channel_", CHANNELS), "likely_action": ("p_action_", VISIT_KINDS)}
CUTS = {"behaviour_segment": "behaviour", "taste_segment": "taste"}


def load_outlook(settings: Settings) -> tuple[pa.Table, dict[str, str]]:
    """Predictions by account.

    Returns:
        ``customer_id`` and all fields of source ``prediction``; and fields of which nothing is known for anybody, with
        what would make them known.

    Raises:
        OutboundError: The published file cannot be used.
    """
    path = settings.overview / OUTLOOK_FILE
    if not path.is_file():
        found: dict[str, Any] = {"customer_id": pa.array([], pa.string())}
    else:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = _columns({name: arrays[name] for name in arrays.files})
        except (KeyError, ValueError, OSError, IndexError) as error:
            raise OutboundError(f"the predictions at {path} cannot be used: {error}; {RUN} again") from error
    rows = len(found["customer_id"])
    wanted = {field.name: field for field in PEOPLE.values() if field.source == "prediction"}
    for name, field in wanted.items():
        kind = pa.float64() if field.type == "number" else pa.string()
        found.setdefault(name, pa.nulls(rows, kind))
    absent = {name: RUN for name in wanted if found[name].null_count == rows}
    return pa.table(found), absent


def _columns(arrays: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"customer_id": pa.array(arrays["customers"].astype(str).tolist(), pa.string())}
    for name, column in NUMBERS.items():
        values = np.asarray(arrays[column], np.float64)
        found[name] = pa.array(np.round(values, 4), mask=~np.isfinite(values))
    for name, (prefix, titles) in CHOICES.items():
        chances = np.stack([np.asarray(arrays[f"{prefix}{title}"], np.float64) for title in titles], 1)
        known = np.isfinite(chances).any(1).tolist()
        best = np.where(np.isfinite(chances), chances, -1.0).argmax(1).tolist()
        found[name] = pa.array(
            [titles[place] if ok else None for place, ok in zip(best, known, strict=True)], pa.string()
        )
    for name, cut in CUTS.items():
        numbers, titles = np.asarray(arrays[f"p_{cut}"], np.float64), arrays[f"{cut}_names"].tolist()
        found[name] = pa.array(
            [titles[int(number)] if np.isfinite(number) else None for number in numbers], pa.string()
        )
    return found
