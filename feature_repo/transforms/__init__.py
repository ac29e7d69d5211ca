"""Feature rows as pure Ibis expressions: `Table -> Table`, no backend, no clock, no files.

The same expression runs on DuckDB (default), on Spark or on any other Ibis backend with window
functions. Every function takes lake tables and returns rows with the entity keys, ``event_timestamp``
and the columns that `contracts.features` names. `events` brings one more column, ``at_us``: occurred_at
in microseconds since 1970-01-01 UTC, which every backend can compute but Ibis cannot say. A row holds
what is known at its event_timestamp, that moment included; it holds until the next row of the same key.

Belongs here: arithmetic over events. Does not belong here: reading and writing (`feature_repo/build.py`),
arithmetic that depends on the moment of the request (`contracts.features`).
"""

from __future__ import annotations

from feature_repo.transforms.customer import customer_rows
from feature_repo.transforms.pairs import customer_category_rows, customer_product_rows, customer_type_rows
from feature_repo.transforms.product import product_rows
from feature_repo.transforms.store import customer_store_product_rows, store_product_rows

__all__ = [
    "customer_category_rows",
    "customer_product_rows",
    "customer_rows",
    "customer_store_product_rows",
    "customer_type_rows",
    "product_rows",
    "store_product_rows",
]
