"""Reading what the relationship models learn from: visits from the lake, sessions from a table.

Belongs here: queries and files. Does not belong here: features (`summaries.py`, `intent.encode`).
"""

from __future__ import annotations

import csv
import gzip
import pathlib

import numpy as np
import numpy.typing as npt

from contracts.features import MICROSECONDS_PER_DAY
from contracts.settings import Settings
from feature_repo.snapshots import attach, connect
from training.relationship.intent import encode
from training.relationship.summaries import Visits, make_visits


def read_visits(settings: Settings, version: int | None = None, threads: int = 1) -> tuple[int, Visits]:
    """Purchases of known customers, one row per customer and moment.

    Args:
        settings: The installation.
        version: Delta version of ``events``, or None for the latest.
        threads: Of the query.

    Returns:
        The version that was read, and the visits.

    Raises:
        SnapshotError: There is no such table or version.
    """
    con = connect(threads=threads)
    found = attach(con, "events", settings.lake / "events", version)
    rows = con.execute(
        """
        select customer_id as customer, epoch_us(occurred_at) as us,
            sum(coalesce(quantity, 0) * coalesce(unit_price, 0))::double as spend, count(*)::double as lines,
            sum(coalesce(quantity, 0) * coalesce(discount, 0))::double as discount
        from events where action = 'purchase' and customer_id is not null
        group by all order by customer, us
        """
    ).fetchnumpy()
    at = np.asarray(rows["us"], np.int64) / MICROSECONDS_PER_DAY
    customer = np.asarray(rows["customer"]).astype(np.str_)
    return found, make_visits(customer, at, rows["spend"], rows["lines"], rows["discount"])


def read_sessions(
    path: pathlib.Path, outcome: str = "Revenue"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sessions from a CSV file (optionally gzip) in the columns of online-shoppers-intention.

    Args:
        path: The file.
        outcome: Column that says TRUE or FALSE.

    Returns:
        float64[M, F], see `intent.encode`, and float64[M], 1 where the session bought.

    Raises:
        ValueError: The file cannot be read, is empty, or a field is missing or unknown; the message names it.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path.name} cannot be read: {error}; expected a CSV file in UTF-8") from error
    if not rows:
        raise ValueError(f"{path.name} holds no session; expected a header and rows")
    columns = {name: [row[name] for row in rows] for name in rows[0] if name is not None}
    if outcome not in columns:
        raise ValueError(f"field '{outcome}' is missing in {path.name}; expected the outcome, TRUE or FALSE")
    said = [str(value).upper() for value in columns[outcome]]
    if wrong := sorted(set(said) - {"TRUE", "FALSE"}):
        raise ValueError(f"field '{outcome}' holds '{wrong[0]}'; expected TRUE or FALSE")
    return encode(columns), np.array([value == "TRUE" for value in said], np.float64)
