"""Searches on web and app: by text, voice and photo, those that find nothing, and those tried again.

Belongs here: queries and their results. Does not belong here: what is looked at afterwards (`digital.py`).
"""

from __future__ import annotations

import numpy as np

from training.rehearsal.catalogue import ADJECTIVES, COLOURS, TYPES, UNSOLD
from training.rehearsal.draws import Draws, Floats, Ints
from training.rehearsal.log import ACT, QUERY_BACKWARD, QUERY_DO, QUERY_FORWARD, QUERY_GO, RESULTS, TP, Draft
from training.rehearsal.sessions import APP, MARKETPLACE, Sessions
from training.rehearsal.state import DO, GO
from training.rehearsal.world import World

_SEARCH = np.array([0.5, 0.12, 0.4, 0.42])
"""Chance of a search by need."""


def play(world: World, draft: Draft, s: Sessions, draws: Draws) -> Floats:
    """Searches before the views; returns how many of them found nothing, by session."""
    searches = (draws.uniform("search", s.key) < _SEARCH[s.need]) & (s.channel != MARKETPLACE)
    at = np.flatnonzero(searches)
    key = s.key[at]
    kind = s.wanted[at].copy()
    unsold = draws.uniform("unsold", key) < 0.05
    kind[unsold] = len(TYPES) + draws.below("unsold word", key[unsold], len(UNSOLD))
    likes = world.style.colours[world.people.archetype[s.person[at], 0]]
    pick = draws.uniform("adjective", key)
    colour = draws.choice("query colour", key, likes)
    pattern = len(COLOURS) + draws.below("query pattern", key, len(ADJECTIVES) - len(COLOURS))
    adjective = np.where(pick < 0.5, colour, np.where(pick < 0.66, pattern, -1))
    mode = np.full(len(at), QUERY_FORWARD)
    go, do = s.need[at] == GO, (s.need[at] == DO) & ~unsold
    mode[go], mode[do] = QUERY_GO, QUERY_DO
    adjective[go | do] = -1
    visual = (s.channel[at] == APP) & ~go & ~do & ~unsold & (draws.uniform("photo", key) < 0.12)
    voice = (s.channel[at] == APP) & ~visual & (draws.uniform("voice", key) < 0.1)
    found = np.where(go | do, 3, _found(world, kind, adjective))
    found[visual] = 24
    action = np.where(visual, ACT["visual_search"], np.where(voice, ACT["voice_search"], ACT["search"]))
    draft.add(
        at, 4, action=action, touchpoint=TP["results"], query_type=np.where(visual, -1, kind),
        query_adjective=np.where(visual, -1, adjective), query_mode=np.where(visual, -1, mode),
        media=np.where(visual, key, -1), detail=RESULTS, a=found,
    )  # fmt: skip
    again = ~visual & (draws.uniform("again", key) < np.where(found == 0, 0.6, 0.05))
    at2, kind2, adjective2, mode2, key2 = at[again], kind[again], adjective[again], mode[again], key[again]
    how = draws.uniform("how again", key2)
    adjective2 = np.where((how < 0.4) & (mode2 == QUERY_FORWARD), -1, adjective2)
    mode2 = np.where((how > 0.75) & (mode2 == QUERY_FORWARD) & (adjective2 >= 0), QUERY_BACKWARD, mode2)
    found2 = np.where(mode2 >= QUERY_GO, 3, _found(world, kind2, adjective2))
    draft.add(
        at2, 5, action=ACT["search"], touchpoint=TP["results"], query_type=kind2, query_adjective=adjective2,
        query_mode=mode2, detail=RESULTS, a=found2,
    )  # fmt: skip
    second = draws.uniform("another", key) < 0.08
    at3, key3 = at[second], key[second]
    kind3 = (s.wanted[at3] + 1 + draws.below("another type", key3, len(TYPES) - 1)) % len(TYPES)
    draft.add(
        at3, 35, action=ACT["search"], touchpoint=TP["results"], query_type=kind3, query_mode=QUERY_FORWARD,
        detail=RESULTS, a=_found(world, kind3, np.full(len(at3), -1)),
    )  # fmt: skip
    grim = np.zeros(len(s.person))
    np.add.at(grim, at, found == 0)
    np.add.at(grim, at2, found2 == 0)
    return grim


def _found(world: World, kind: Ints, adjective: Ints) -> Ints:
    shop = world.shop
    sold = kind < len(TYPES)
    safe = np.where(sold, kind, 0)
    whole = np.diff(shop.first_of)[safe]
    return np.where(sold, np.where(adjective < 0, whole, shop.found[safe, np.maximum(adjective, 0)]), 0)
