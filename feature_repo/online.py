"""Feast's registry and online store: apply, materialize explicit windows, read rows back.

Belongs here: calls of Feast that change or read its stores. Does not belong here: definitions
(`feature_repo/views.py`), the live server's own profiles (`serving/profiles`), which do not need Feast.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from feast import FeatureStore

from contracts.settings import Settings, read_retailer
from feature_repo.catalog import VIEWS, stored
from feature_repo.snapshots import attach, connect, quoted
from feature_repo.store import open_store
from feature_repo.views import build_definitions

RECENT_DAYS = 7
"""Days before a window's end of which views with many keys are written online.

Feast writes about 5,000 entities a second to SQLite (measured on 2 cores), so a year of customer and product
pairs (700,000) would take minutes; the live server keeps those from raw events and does not read them here.
"""

WHOLE_WINDOW = ("customer", "product")
"""Views that are written for the whole window."""


def apply(settings: Settings, environment: str = "local") -> dict[str, list[dict[str, Any]]]:
    """Put the definitions into the registry and create what the online store needs.

    Returns:
        What was applied: ``views`` (view, entities, features) and ``services`` (service, views, features).
    """
    store = open_store(settings, environment)
    definitions = build_definitions(settings, read_retailer(settings))
    store.apply(definitions.everything)
    views = [
        {"view": v.name, "entities": ", ".join(v.entities), "features": len(v.features)}
        for v in definitions.views
    ]
    views += [{"view": v.name, "entities": "", "features": len(v.features)} for v in definitions.on_demand]
    services = [
        {
            "service": s.name,
            "views": ", ".join(projection.name for projection in s.feature_view_projections),
            "features": sum(len(projection.features) for projection in s.feature_view_projections),
        }
        for s in definitions.services
    ]
    return {"views": views, "services": services}


def materialize(
    settings: Settings,
    start: dt.datetime,
    end: dt.datetime,
    views: Sequence[str] | None = None,
    environment: str = "local",
) -> list[dict[str, Any]]:
    """Write the latest feature rows of a window of time to the online store.

    The window is explicit (Feast's incremental watermark is not used). A window that ends before a
    view's newest row is prolonged to it, because older values would otherwise replace newer ones.

    Args:
        settings: Where features and stores lie.
        start: First moment, with a zone.
        end: Last moment, with a zone, after the start.
        views: These views over the whole window; by default every view, those outside `WHOLE_WINDOW`
            only for the last `RECENT_DAYS` before the end.
        environment: Which feature_store yaml.

    Returns:
        Per view: ``view``, ``rows`` (entities written), ``start``, ``end``, ``seconds``.

    Raises:
        UnknownViewError: No such view.
        ValueError: The window has no zone or ends before it starts.
    """
    if start.tzinfo is None or end.tzinfo is None or end <= start:
        raise ValueError(f"window is {start} to {end}; expected two times with a zone, in order")
    store = open_store(settings, environment)
    written = []
    for name in VIEWS if views is None else [stored(name).name for name in views]:
        begun = time.perf_counter()
        first = start
        if views is None and name not in WHOLE_WINDOW:
            first = max(start, end - dt.timedelta(days=RECENT_DAYS))
        last = max(end, _newest(settings, name) or end)
        with contextlib.redirect_stdout(sys.stderr):
            store.materialize(first, last, feature_views=[name])
        written.append(
            {
                "view": name,
                "rows": _entities_between(settings, name, first, last),
                "start": first.isoformat(),
                "end": last.isoformat(),
                "seconds": round(time.perf_counter() - begun, 2),
            }
        )
    return written


def online_rows(
    settings: Settings,
    service: str,
    entities: Mapping[str, Sequence[Any]],
    store: FeatureStore | None = None,
) -> dict[str, list[Any]]:
    """Read rows of a feature service from the online store.

    Args:
        settings: Where the stores lie.
        service: Feature service, for example ``ranker_v1``.
        entities: Join keys (and request columns) as equally long lists.
        store: An open store, to save opening one per call.

    Returns:
        Join keys and features as lists; None where the store has no row.
    """
    opened = store or open_store(settings)
    answer = opened.get_online_features(
        features=opened.get_feature_service(service),
        entity_rows=[dict(zip(entities, row, strict=True)) for row in zip(*entities.values(), strict=True)],
    )
    rows: dict[str, list[Any]] = answer.to_dict()
    return rows


def _newest(settings: Settings, name: str) -> dt.datetime | None:
    con = connect()
    attach(con, "rows", settings.features / name)
    newest: dt.datetime | None = con.sql("select max(event_timestamp) from rows").fetchall()[0][0]
    return newest


def _entities_between(settings: Settings, name: str, start: dt.datetime, end: dt.datetime) -> int:
    con = connect()
    attach(con, "rows", settings.features / name)
    keys = ", ".join(quoted(key) for key in stored(name).keys)
    query = f"select count(distinct ({keys})) from rows where event_timestamp between ? and ?"
    return int(con.execute(query, [start, end]).fetchall()[0][0])
