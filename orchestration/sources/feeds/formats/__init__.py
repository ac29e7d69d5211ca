"""Formats: for each kind of export, the mapping that it comes with.

A format is a `contracts.retailer.Feed` that the retailer's own mapping is laid over, a query that brings
its rows into reach of paths, and the columns or keys it is recognised by.

Belongs here: what is special about an export. Does not belong here: paths, values and times in general.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

import msgspec

from contracts.retailer import Feed


def same(relation: str, columns: Collection[str]) -> str:
    """The relation as it is."""
    return f"select * from {relation}"


@dataclasses.dataclass(frozen=True)
class Format:
    """One kind of export.

    Attributes:
        name: As in `contracts.settings.FeedFormat`.
        preset: What it maps by itself; ``files`` means nothing here.
        recognises: Whether columns, or top-level keys of documents, are of this kind.
        prepare: SQL over a relation (and its columns) that gives rows of the same shape with more in reach.
        documents: Columns are turned into one JSON document a row before they are prepared.
        explode: Actions whose items become one event each; empty for all.
        detail: JSON path of what is kept of a document; the whole of it if None.
        shed: Keys of that part that are left out (the list of items).
    """

    name: str
    preset: Feed
    recognises: Callable[[set[str]], bool]
    prepare: Callable[[str, Collection[str]], str] = same
    documents: bool = False
    explode: frozenset[str] = frozenset()
    detail: str | None = None
    shed: tuple[str, ...] = ()


def overlaid(preset: Feed, own: Feed) -> Feed:
    """A format's mapping with the retailer's own laid over it; tables of words are merged key by key."""
    changed = {
        name: getattr(own, name)
        for name in own.__struct_fields__
        if getattr(own, name) != getattr(Feed(), name)
    }
    for name in ("fields", "identifiers", "constants", "consent"):
        changed[name] = {**getattr(preset, name), **getattr(own, name)}
    values = {field: dict(words) for field, words in preset.values.items()}
    for field, words in own.values.items():
        values[field] = {**values.get(field, {}), **words}
    return msgspec.structs.replace(preset, **{**changed, "values": values})


def known() -> dict[str, Format]:
    """All formats by name, the most particular first; ``rows`` is last and recognises everything."""
    from orchestration.sources.feeds.formats import canonical, cloudevents, ga4, segment, shopify, snowplow

    formats = (
        segment.FORMAT, ga4.FORMAT, snowplow.FORMAT, cloudevents.FORMAT, shopify.ORDERS, shopify.CUSTOMERS,
        shopify.PRODUCTS, canonical.FORMAT, canonical.ROWS,
    )  # fmt: skip
    return {one.name: one for one in formats}


def recognised(columns: Collection[str]) -> Format:
    """The first format that knows these columns or keys."""
    return next(one for one in known().values() if one.recognises(set(columns)))
