"""Judging releases on one frozen set of requests, by the very code that serves.

The frozen set is the first basket of each customer in the evaluation window. Challenger and champion
are opened as serving opens them, given the same histories up to the same moments, and compared request
by request; the baselines stand beside them.

Belongs here: freezing the set, scoring a release folder on it, the verdict's record. Does not belong
here: metrics and statistics (`training/evaluation`), ranking (`serving/engine`).
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from contracts.retailer import Retailer
from contracts.settings import Settings
from orchestration.windows import Windows, cut

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from serving.engine.items import ItemTable
    from serving.profiles.history import History
    from serving.releases.release import Release
    from serving.releases.verify import Verified
    from training.ranker.items import ItemTables as Tables

CUTOFF = 10
"""Items per answer that the verdict looks at."""

FROZEN_SQL = """
with lines as (
  select customer_id, occurred_at, product_id, store_id from events
  where action = 'purchase' and customer_id is not null and product_id is not null
    and occurred_at >= $start and occurred_at < $stop
), firsts as (select customer_id, min(occurred_at) as request_at from lines group by 1)
select f.customer_id, f.request_at, min(l.store_id) as store_id,
       list(distinct l.product_id order by l.product_id) as targets
from firsts f join lines l on l.customer_id = f.customer_id and l.occurred_at = f.request_at
group by 1, 2 order by 1
"""


@dataclass(frozen=True)
class Frozen:
    """One frozen evaluation set.

    Attributes:
        path: Parquet file: customer_id, request_at, store_id, targets.
        sha256: Of its content in canonical form.
        requests: How many.
        targets_per_request: Mean basket size.
        events_version: Lake snapshot it was cut from.
        windows: How time was cut.
    """

    path: pathlib.Path
    sha256: str
    requests: int
    targets_per_request: float
    events_version: int
    windows: Windows

    def table(self) -> pa.Table:
        """The requests."""
        import pyarrow.parquet as pq

        return pq.read_table(self.path)


def freeze(settings: Settings, retailer: Retailer) -> Frozen:
    """Cut the frozen set out of the newest snapshot and write it under its hash."""
    import pyarrow.parquet as pq

    from feature_repo.snapshots import attach, connect

    con = connect()
    version = attach(con, "events", settings.lake / "events")
    windows = cut(retailer, settings.lake, version)
    table = con.sql(
        FROZEN_SQL, params={"start": windows.evaluate_from, "stop": windows.evaluate_until}
    ).to_arrow_table()
    rows = table.to_pylist()
    text = "\n".join(
        f"{r['customer_id']},{r['request_at'].isoformat()},{r['store_id']},{' '.join(r['targets'])}"
        for r in rows
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    folder = settings.home / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest[:16]}.parquet"
    staged = path.with_suffix(".tmp")
    pq.write_table(table, staged)
    staged.replace(path)
    frozen = Frozen(
        path, digest, len(rows), sum(len(r["targets"]) for r in rows) / max(1, len(rows)), version, windows
    )
    record = {
        **asdict(frozen),
        "path": path.name,
        "windows": {k: v.isoformat() for k, v in asdict(windows).items()},
    }
    staged = folder / "LATEST.tmp"
    staged.write_text(json.dumps(record))
    staged.replace(folder / "LATEST.json")
    return frozen


def latest_frozen(settings: Settings) -> Frozen:
    """The set that was frozen last.

    Raises:
        FileNotFoundError: None has been frozen here.
    """
    import datetime as dt

    folder = settings.home / "evaluation"
    record = json.loads((folder / "LATEST.json").read_text())
    windows = Windows(**{name: dt.datetime.fromisoformat(value) for name, value in record["windows"].items()})
    return Frozen(
        folder / record["path"], record["sha256"], record["requests"], record["targets_per_request"],
        record["events_version"], windows,
    )  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """A release on a frozen set.

    Attributes:
        release: Its name.
        ndcg: NDCG@10 per request, float64[R].
        recall: Recall@10 per request, float64[R].
        answers: Answered product ids per request, best first.
    """

    release: str
    ndcg: NDArray[np.float64]
    recall: NDArray[np.float64]
    answers: list[list[str]]


Request = tuple["History", int, int, set[str]]
"""History before the request, its moment in microseconds, its store's index, the products bought."""


def read_requests(settings: Settings, frozen: Frozen, items: ItemTable) -> list[Request]:
    """The requests of a frozen set in the terms of a release's item table.

    Raises:
        FileNotFoundError: No histories are published that hold the set's snapshot.
    """
    from serving.profiles.history import empty_history, to_microseconds
    from serving.profiles.snapshot import current_name, read_snapshot

    name = current_name(settings.profiles)
    if name is None:
        raise FileNotFoundError(f"no histories are published in {settings.profiles}")
    snapshot = read_snapshot(settings.profiles, name)
    item_of, store_of = items.lookup(snapshot.products), items.lookup_stores(snapshot.stores)
    found: list[Request] = []
    for request in frozen.table().to_pylist():
        at_us = to_microseconds(request["request_at"])
        row = snapshot.row(request["customer_id"])
        whole = empty_history() if row < 0 else snapshot.history(row, item_of, store_of)
        store = items.store_index.get(request["store_id"] or "", -1)
        found.append((whole.before(at_us), at_us, store, set(request["targets"])))
    return found


class Judge:
    """Scores releases on one frozen set, with everything as it was before the set began.

    Histories are cut at each request's moment. A release's item table knows sales up to its own moment,
    which for a fresh release lies after the set; so every release is judged with tables as of the
    start of the set, mapped to its own vocabulary. Displays and mailers of later weeks are public when
    their week begins and are kept.

    Args:
        settings: The installation; its published histories must hold the set's snapshot.
        frozen: The set.
        tables: Item tables as of the start of the set (`training.ranker.items`).
    """

    def __init__(self, settings: Settings, frozen: Frozen, tables: Tables) -> None:
        self._settings = settings
        self._frozen = frozen
        self._tables = tables

    def open(self, verified: Verified) -> Release:
        """Load a proven release with the tables of this judge.

        Raises:
            ReleaseError: It cannot be served, so it is not judged either.
        """
        from serving.engine.items import read_arrays
        from serving.releases import release as parts
        from serving.releases.verify import Verified as Proven

        known = read_arrays(parts.ITEMS_FILE, verified.files[parts.ITEMS_FILE])
        items = {**self._tables.items, "encoder_id": _remap(known, self._tables.items["product_id"])}
        files = {path: content for path, content in verified.files.items() if path != parts.GOLDEN_FILE}
        files[parts.ITEMS_FILE] = _archive(items)
        files[parts.EXPOSURES_FILE] = _archive(self._tables.exposures)
        files[parts.STORE_PRODUCTS_FILE] = _archive(self._tables.store_products)
        return parts.build_release(Proven(verified.manifest, files))

    def score(self, release: Release) -> Scored:
        """Answer every request and compare with what was bought."""
        import numpy as np

        from contracts.features import MICROSECONDS_PER_DAY

        product_ids = release.engine.items.product_ids
        gains = 1 / np.log2(np.arange(2, CUTOFF + 2))
        ndcg, recall, answers = [], [], []
        for history, at_us, store, targets in read_requests(
            self._settings, self._frozen, release.engine.items
        ):
            ranked = release.engine.rank(history, at_us / MICROSECONDS_PER_DAY, store, CUTOFF)
            answer = [product_ids[item] for item in ranked.items.tolist()]
            hits = np.array([product_id in targets for product_id in answer], np.float64)
            ndcg.append(float((hits * gains[: len(hits)]).sum() / gains[: len(targets)].sum()))
            recall.append(float(hits.sum() / len(targets)))
            answers.append(answer)
        return Scored(release.name, np.array(ndcg), np.array(recall), answers)


PURCHASES_SQL = """
select distinct customer_id, epoch_us(occurred_at) as at_us, product_id from events
where action = 'purchase' and customer_id is not null and product_id is not null and occurred_at < $until
order by customer_id, at_us, product_id
"""


def baseline_ndcg(settings: Settings, frozen: Frozen) -> dict[str, NDArray[np.float64]]:
    """NDCG@10 per request of every baseline, from what was bought before the set began."""
    import numpy as np

    from contracts.features import MICROSECONDS_PER_DAY
    from feature_repo.snapshots import attach, connect
    from training.evaluation.baselines import Purchases, baseline_answers
    from training.evaluation.metrics import ndcg, targets_of

    con = connect()
    attach(con, "events", settings.lake / "events", frozen.events_version)
    rows = con.sql(PURCHASES_SQL, params={"until": frozen.windows.evaluate_from}).to_arrow_table()
    requests = frozen.table().to_pylist()
    customers, customer = np.unique(
        rows["customer_id"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True
    )
    bought = rows["product_id"].to_numpy(zero_copy_only=False).astype(str)
    wanted = [product for request in requests for product in request["targets"]]
    products = np.unique(np.concatenate([bought, np.array(wanted, dtype=bought.dtype)]))
    purchases = Purchases(
        customer=customer.astype(np.int64),
        item=np.searchsorted(products, bought),
        at=rows["at_us"].to_numpy() / MICROSECONDS_PER_DAY,
        customers=len(customers),
        items=len(products),
        until=frozen.windows.evaluate_from.timestamp() / 86_400,
    )
    place = {name: number for number, name in enumerate(customers.tolist())}
    asked = np.array([place.get(request["customer_id"], -1) for request in requests], np.int64)
    targets = targets_of([np.searchsorted(products, request["targets"]).tolist() for request in requests])
    answers = baseline_answers(purchases, asked, CUTOFF)
    return {name: ndcg(found, targets, CUTOFF) for name, found in answers.items()}


def _remap(known: dict[str, NDArray[np.generic]], product_ids: NDArray[np.str_]) -> NDArray[np.int32]:
    """A release's encoder ids in the order of other product ids; 0 where it knows none."""
    import numpy as np

    place = np.minimum(np.searchsorted(known["product_id"], product_ids), len(known["product_id"]) - 1)
    same = known["product_id"][place] == product_ids
    return np.where(same, known["encoder_id"][place], 0).astype(np.int32)


def _archive(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
