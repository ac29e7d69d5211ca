"""The atelier: a simulated fashion shop whose truth is known.

`simulate(AtelierConfig(...))` plays a shop day by day: shoppers with tastes, budgets, seasons and friends
zigzag over every channel of `contracts.events`, meet stock-outs, failed searches, late parcels, price
shocks and errors, and react. The same config gives the same shop, bit for bit. What is simulated is
never mistaken for real: the source is called ``atelier`` and its profile says ``simulated: true``.

Every random number is a hash of (seed, day, who, what for), not the next of a stream. A run in which a
channel is silenced (`AtelierConfig.silenced`) therefore differs from the run with it only by what the
channel caused: the two are potential outcomes of the same people.

Tables of an `Atelier` (all pyarrow; ids are text, times are timestamp[us, UTC]):

* ``events``: the fields of `contracts.events.Event` by name; identifiers, detail and consent as JSON text;
  ``moment`` is always null. Conventions: a ``view``, ``add_to_cart``, ``purchase`` or ``return`` carries
  the price shown or paid in ``unit_price``; a search says ``{"results": n}``; a ``stockout``
  ``{"size": s}``; a ``delivery`` ``{"order": session, "promised": iso, "delivered": iso, "late_days": n}``;
  an ``error`` ``{"code": n, "page": text}``; a filled form (account, loyalty card, guest checkout)
  ``{"form": {given_name, family_name, street, postcode, city, birth_year}}``; a campaign contact
  ``{"campaign": id}``; a redeemed coupon ``{"offer_id": id, "campaign": id}``. The customer file that the shop
  already had comes as ``subscribe`` events on the first day (touchpoint ``import``). Page types are
  touchpoints: ``reviews``, ``size-guide``, ``store-finder``,
  ``guide``, ``product``, ``cart``, ``home``; a store is ``store:<id>``, its kiosk ``kiosk:<id>``.
* ``products``: the columns of the lake's products table (attributes as JSON).
* ``customers``: ``customer_id, age`` (band) of every login.
* ``records``: forms as the shop knows them (typos included): ``record_id, event_id, recorded_at,
  identifier_kind, identifier_value, given_name, family_name, street, postcode, city, birth_year``.

Truth (never shown to a model as input):

* ``identity``: ``event_id, person_id, household_id, linkable``. Linkable: the person can be known from
  identifiers that co-occur in events and from forms; false for cookies that never met a name, shared
  cards, kiosks and nameless tills.
* ``identifiers``: ``kind, value, person_id`` (null where shared, and for crawlers), ``household_id``
  (null for kiosks and crawlers),
  ``shared, linkable``.
* ``persons``: ``person_id, household_id, given_name, family_name, street, postcode, city, birth_year,
  joined_on, churned_on`` (null while active), ``yearly_sessions`` (propensity), ``archetype``.
* ``moments``: ``event_id, person_id, occurred_at, kind`` (of `contracts.events.MOMENTS`), ``observable``.
  Kinds, over the events of one true person in time order:

  - failed_search: a search with ``results`` 0;
  - repeated_search: a text or voice search whose query shares at least half of its distinct words
    (Jaccard) with an earlier one of the same person at most 30 minutes before;
  - out_of_stock: a ``stockout``; delay: a ``delivery`` with ``late_days`` of at least 1; error, return,
    complaint: the actions;
  - price_shock: a ``view`` at more than 1.05 times the price of the person's last view of that product,
    at most 30 days before;
  - want_to_buy: the first ``add_to_cart`` of a session, or in store the first ``purchase``;
    want_to_go: the first ``view`` of ``store-finder`` in a session; want_to_do: the first ``view`` of
    ``guide``; want_to_know: the first ``view`` of ``reviews`` or ``size-guide``;
  - not observable: what left no trace (an empty shelf, a crash without a log, a parcel nobody scanned,
    a want that was never acted on), attached to the event nearest to it; and a price shock or repeated search
    whose earlier event is under an identifier that nothing links.
* ``needs``: ``session_id, person_id, started_at, channel, need`` (want_to_know, _go, _do, _buy),
  ``product_type, open_since`` (when that need arose; null for idle browsing).
* ``tastes``: ``person_id, archetype, second_archetype, weight, types, colours, patterns`` (lists of
  float, sum 1, in the order of `catalogue.TYPES`, `COLOURS`, `PATTERNS`), ``price_level, size``.
* ``campaigns``: ``campaign_id, channel, starts_on, product_type`` (its theme), ``audience``,
  ``treated``.
* ``assignments``: ``campaign_id, person_id, customer_id, channel, sent_at, treated, effect_visit`` (true
  effect of the contact on the probability of a visit within 7 days, by known hazards at that moment).
* ``purchase_causes``: one row per purchased line and channel without whose contacts it would not have
  happened: ``event_id, session_id, channel``.
* ``effects``: ``channel, sessions, sessions_without, purchases, purchases_without, revenue,
  revenue_without``: the direct causal effect, each visit and each basket judged with and without the
  channel's contacts, everything before it as it was; visits and baskets that a contact put off count as
  happening without it, but what would have been bought in a visit that did not happen is not known here.
  The whole effect, with all that follows, is the difference to a run with the channel in ``silenced``.
* ``friends``: ``person_id, friend_id``.
* ``shared_devices``: ``value, kind`` (household, kiosk), ``holder`` (household or store id), ``persons`` (list).
* ``outages``: ``product_id, size, from, until``: when a size was out of stock (until is null at the end).

Belongs here: people, shop and truth of the simulation. Does not belong here: the mapping into the lake
(`orchestration/sources/atelier.py`), detectors and models that are judged by the truth.
"""

from training.rehearsal.config import AtelierConfig, RehearsalError
from training.rehearsal.simulate import Atelier, simulate

__all__ = ["Atelier", "AtelierConfig", "RehearsalError", "simulate"]
