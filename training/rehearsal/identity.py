"""Truth about identities: who was behind each event and identifier, and whether that can be known.

Belongs here: the person of everything, shared things, linkability. Does not belong here: linking itself,
which has to be done without this.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from training.rehearsal import log, rendering
from training.rehearsal.draws import Ints
from training.rehearsal.forms import Identities
from training.rehearsal.log import Chunk
from training.rehearsal.state import HOUSEHOLD, KIOSK_DEVICE
from training.rehearsal.world import World

Flags = npt.NDArray[np.bool_]

_PERSONAL = (log.CUSTOMER, log.CARD, log.EMAIL, log.EMAIL_TWO, log.PHONE)
_FORM = len(_PERSONAL)
"""Node of a person's forms, which all tell the same name."""


@dataclasses.dataclass(frozen=True)
class Graph:
    """Which identifiers co-occur, per person.

    Attributes:
        devices: int64[D], distinct devices; ``device_of`` int64[E], row of each event's device or -1.
        personal_linkable: bool[N, 6], by person and kind (the last is the forms).
        device_linkable: bool[D].
        event_linkable: bool[E].
    """

    devices: Ints
    device_of: Ints
    personal_linkable: Flags
    device_linkable: Flags
    event_linkable: Flags


def link(world: World, events: Chunk) -> Graph:
    """Connect what occurs together in an event, leaving out what several people share.

    A person's largest group of connected identifiers that holds a login or a form (or the largest at all
    where neither exists) is linkable; the rest cannot be told from a stranger's.
    """
    total, person, ids = len(world.people), events["person"].astype(np.int64), events["ids"]
    known = person >= 0
    carries = ((ids & log.DEVICE) > 0) & (events["device"] >= 0)
    devices, at = np.unique(events["device"][carries], return_inverse=True)
    device_of = np.full(len(person), -1)
    device_of[carries] = at
    private = (devices >> 56) < HOUSEHOLD
    width = len(_PERSONAL) + 1
    nodes = np.full((len(person), width + 1), -1, np.int64)
    for column, bit in enumerate(_PERSONAL):
        has = known & ((ids & bit) > 0)
        if bit == log.CARD:
            has &= ~world.people.shared_card[person]
        nodes[has, column] = person[has] * width + column
    form = known & (events["detail"] == log.FORM)
    nodes[form, _FORM] = person[form] * width + _FORM
    own = carries & known
    own[carries] &= private[at]
    nodes[own, width] = total * width + device_of[own]
    size = total * width + len(devices)
    first = np.where(nodes >= 0, nodes, size).min(axis=1)
    pairs = np.unique(
        np.concatenate(
            [
                np.stack([first, nodes[:, column]], axis=1)[nodes[:, column] >= 0]
                for column in range(width + 1)
            ]
        ),
        axis=0,
    )
    edges = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, group = connected_components(edges, directed=False)
    main = _main_groups(world, pairs, group, total, width, nodes, person)
    used = np.zeros(size, bool)
    used[pairs.ravel()] = True
    owner = np.full(size, -1)
    owner[: total * width] = np.repeat(np.arange(total), width)
    rows = np.flatnonzero(own)
    owner[nodes[rows, width]] = person[rows]
    linkable = used & (owner >= 0) & (group == main[np.maximum(owner, 0)])
    event = np.where(nodes >= 0, linkable[np.maximum(nodes, 0)], False).any(axis=1)
    return Graph(
        devices, device_of, linkable[: total * width].reshape(total, width), linkable[total * width :], event
    )


def _main_groups(
    world: World, pairs: Ints, group: Ints, total: int, width: int, nodes: Ints, person: Ints
) -> Ints:
    """The group of each person that counts as the person."""
    used = np.unique(pairs)
    owner = np.where(used < total * width, used // width, -1)
    holders = nodes[:, width]
    rows = np.flatnonzero(holders >= 0)
    device_owner = np.full(group.shape[0] - total * width, -1, np.int64)
    device_owner[holders[rows] - total * width] = person[rows]
    late = used >= total * width
    owner[late] = device_owner[used[late] - total * width]
    names = np.where(used < total * width, np.isin(used % width, (0, _FORM)), False)
    # Rank groups per person: those with a name first, then the largest.
    keys = owner * (group.max() + 1) + group[used]
    distinct, inverse = np.unique(keys, return_inverse=True)
    score = np.bincount(inverse) + 1e6 * np.bincount(inverse, names)
    main = np.full(total, -1, np.int64)
    order = np.argsort(score, kind="stable")
    main[distinct[order] // (group.max() + 1)] = distinct[order] % (group.max() + 1)
    return main


def by_event(world: World, graph: Graph, events: Chunk) -> pa.Table:
    """The truth table ``identity``."""
    person = events["person"].astype(np.int64)
    nobody = person < 0
    return pa.table(
        {
            "event_id": rendering.event_ids(world.config, len(person)),
            "person_id": _null_where(rendering.person_ids(world.config, person), nobody),
            "household_id": _null_where(
                rendering.household_ids(world.config, world.people.household[np.maximum(person, 0)]), nobody
            ),
            "linkable": graph.event_linkable,
        }
    )


def by_identifier(world: World, identities: Identities, graph: Graph, events: Chunk) -> pa.Table:
    """The truth table ``identifiers``: all that occur in the stream."""
    person, ids = events["person"].astype(np.int64), events["ids"]
    people = world.people
    rows: list[pa.Table] = []
    for column, (bit, kind, values) in enumerate(
        (
            (log.CUSTOMER, "customer", identities.customer), (log.CARD, "loyalty_card", identities.card),
            (log.EMAIL, "email_sha256", identities.email), (log.EMAIL_TWO, "email_sha256", identities.email_two),
            (log.PHONE, "phone_sha256", identities.phone),
        )
    ):  # fmt: skip
        who = np.unique(person[((ids & bit) > 0) & (person >= 0)])
        shared = people.shared_card[who] if bit == log.CARD else np.zeros(len(who), bool)
        # A card for all is one identifier, however many members showed it.
        _, kept = np.unique(np.where(shared, -1 - people.household[who], who), return_index=True)
        who, shared = who[kept], shared[kept]
        rows.append(_identifiers(
            world, kind, [values[number] for number in who], who, people.household[who], shared, shared & False,
            graph.personal_linkable[who, column]))  # fmt: skip
    owner = np.full(len(graph.devices), -1)
    seen = np.flatnonzero(graph.device_of >= 0)
    owner[graph.device_of[seen]] = person[seen]
    kind = graph.devices >> 56
    texts = [rendering.device_text(world.config, int(number)) for number in graph.devices]
    named = owner >= 0
    holder = people.household[np.maximum(owner, 0)]
    rows.append(
        _identifiers(
            world, "device", texts, owner, holder, kind >= HOUSEHOLD, (kind == KIOSK_DEVICE) | ~named,
            graph.device_linkable,
        )
    )  # fmt: skip
    return pa.concat_tables(rows)


def _identifiers(
    world: World,
    kind: str,
    values: list[str],
    who: Ints,
    household: Ints,
    shared: Flags,
    public: Flags,
    linkable: Flags,
) -> pa.Table:
    return pa.table(
        {
            "kind": pa.repeat(kind, len(values)),
            "value": pa.array(values, pa.string()),
            "person_id": _null_where(rendering.person_ids(world.config, who), shared | (who < 0)),
            "household_id": _null_where(rendering.household_ids(world.config, household), public),
            "shared": pa.array(shared, pa.bool_()),
            "linkable": pa.array(linkable, pa.bool_()),
        }
    )


def shared_devices(world: World, events: Chunk) -> pa.Table:
    """The truth table ``shared_devices``."""
    carries = (
        (events["device"] >= 0) & (events["device"] >> 56 >= HOUSEHOLD) & ((events["ids"] & log.DEVICE) > 0)
    )
    pairs = np.unique(np.stack([events["device"][carries], events["person"][carries]], axis=1), axis=0)
    devices, begin = np.unique(pairs[:, 0], return_index=True)
    persons = rendering.person_ids(world.config, pairs[:, 1]).to_pylist()
    ends = np.append(begin, len(pairs))[1:]
    holder = (devices >> 16) & 0xFFFFFFFFFF
    kiosk = devices >> 56 == KIOSK_DEVICE
    homes = rendering.household_ids(world.config, holder).to_pylist()
    return pa.table(
        {
            "value": pa.array(
                [rendering.device_text(world.config, int(number)) for number in devices], pa.string()
            ),
            "kind": pa.array(np.where(kiosk, "kiosk", "household").tolist(), pa.string()),
            "holder": pa.array(
                [f"store:{holder[i]}" if kiosk[i] else homes[i] for i in range(len(devices))], pa.string()
            ),
            "persons": pa.array(
                [persons[a:b] for a, b in zip(begin, ends, strict=True)], pa.list_(pa.string())
            ),
        }
    )


def _null_where(values: pa.Array, mask: Flags) -> pa.Array:
    return pa.array(values.to_numpy(zero_copy_only=False), pa.string(), mask=np.asarray(mask))
