"""The simulation as one call.

Belongs here: the order in which a day happens, and what is handed back. Does not belong here: how.
"""

from __future__ import annotations

import dataclasses

import pyarrow as pa

from training.rehearsal import (
    catalogue,
    contacts,
    forms,
    identity,
    moments,
    opening,
    rendering,
    state,
    truth,
    visits,
    world,
)
from training.rehearsal.config import AtelierConfig
from training.rehearsal.draws import Draws


@dataclasses.dataclass(frozen=True)
class Atelier:
    """A simulated shop: its stream, its catalogue and the truth; columns in the package's docstring."""

    config: AtelierConfig
    events: pa.Table
    products: pa.Table
    customers: pa.Table
    records: pa.Table
    identity: pa.Table
    identifiers: pa.Table
    persons: pa.Table
    moments: pa.Table
    needs: pa.Table
    tastes: pa.Table
    campaigns: pa.Table
    assignments: pa.Table
    purchase_causes: pa.Table
    effects: pa.Table
    friends: pa.Table
    shared_devices: pa.Table
    outages: pa.Table

    def tables(self) -> dict[str, pa.Table]:
        """All tables by name."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "config"
        }


def simulate(config: AtelierConfig) -> Atelier:
    """Play a shop from its first day to its last.

    Args:
        config: What to simulate.

    Returns:
        Events in the order of ``occurred_at`` and all truth tables.
    """
    now = world.create(config)
    opening.import_customers(now)
    for day in range(config.days):
        _live(now, day)
    opening.send_crawlers(now)
    events = rendering.skew(config, now.log.read())
    names = forms.identities(config, now.people)
    table = rendering.events_table(now, names, events)
    graph = identity.link(now, events)
    wants = truth.needs(now)
    return Atelier(
        config=config,
        events=table,
        products=catalogue.table(now.shop),
        customers=truth.customers(now, names, events),
        records=truth.records(now, names, events, table),
        identity=identity.by_event(now, graph, events),
        identifiers=identity.by_identifier(now, names, graph, events),
        persons=truth.persons(now, names),
        moments=moments.moments(now, events, graph.event_linkable),
        needs=wants,
        tastes=truth.tastes(now),
        campaigns=truth.campaigns(now),
        assignments=truth.assignments(now, names),
        purchase_causes=truth.purchase_causes(now, events),
        effects=truth.effects(now, events),
        friends=truth.friends(now),
        shared_devices=identity.shared_devices(now, events),
        outages=truth.outages(now),
    )


def _live(now: world.World, day: int) -> None:
    """One day: night, shelves and prices, post, parcels, visits."""
    now.day = day
    draws = Draws(now.config.seed, day)
    begins = rendering.midnight(now.config, day)
    if day % 7 == 0 or not len(now.wish):
        now.turn_season((now.config.first_day.timetuple().tm_yday + day - 1) % 365)
    state.wake(now.state, now.people, draws, day, now.wish, now.config)
    catalogue.reprice(now.shop, draws, day)
    catalogue.restock(now.shop, draws, day)
    contacts.play(now, draws, day, begins)
    now.orders.play(now, draws, day, begins)
    visits.play(now, draws, day, begins)
    now.outages.look(now.shop, day)
