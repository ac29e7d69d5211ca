"""Names, addresses, hashes and identifiers of the shoppers, and the forms they fill in.

Belongs here: everything textual about a person, typing errors included. Does not belong here: when a form
is filled in.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from training.rehearsal.config import AtelierConfig
from training.rehearsal.draws import Draws
from training.rehearsal.people import People

FIELDS = ("given_name", "family_name", "street", "postcode", "city", "birth_year")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_GIVEN = _words(
    "Alexander Katharina Elizabeth Margaret Robert William Christina Thomas Michael Susanna Daniel Johanna "
    "Charlotte Benjamin Josephine Frederick Caroline Samuel Victoria Nicholas Theodore Rebecca Matthew "
    "Eleanor Gabriel Isabella Anthony Natalia Sebastian Amelia Jonathan Beatrice Leonard Philippa Edward "
    "Rosalind Vincent Matilda Oscar Harriet Julian Clara Felix Ingrid Hugo Lucia Martin Nora Oliver Paula "
    "Quentin Ruth Simon Teresa Ulrich Vera Walter Yvonne Zoe Adrian Bianca Conrad Diana Emil Flora Gustav "
    "Helena Ivan Judith Karl Laura Marcus Nadia Otto Pia Raphael Sophia Tobias Ursula Viktor Wanda Xavier "
    "Agnes Boris Celine Dominik Esther Fabian Greta Henrik Irene Jasper Kim Lena Moritz Noemi"
)
_SHORT = {
    "Alexander": "Alex", "Katharina": "Kathi", "Elizabeth": "Liz", "Margaret": "Maggie", "Robert": "Bob",
    "William": "Bill", "Christina": "Tina", "Thomas": "Tom", "Michael": "Mike", "Daniel": "Dan",
    "Charlotte": "Lotte", "Benjamin": "Ben", "Josephine": "Josie", "Frederick": "Fred", "Caroline": "Caro",
    "Samuel": "Sam", "Victoria": "Vicky", "Nicholas": "Nick", "Theodore": "Theo", "Rebecca": "Becky",
    "Matthew": "Matt", "Isabella": "Bella", "Anthony": "Tony", "Sebastian": "Basti", "Jonathan": "Jon",
}  # fmt: skip
_FIRST = _words(
    "Ash Birk Carl Dorn Eich Falk Grün Hart Iser Jung Kirch Lind Mar Nord Oster Pfeil Quell Rosen Stein Tann "
    "Ulm Vogel Wald Zeller Berg Bach Feld Holz Kern Lang Mühl Neu Ober Reich Sand Schön Thal Weiss Wolf Winter"
)
_LAST = _words(
    "mann berg bach er feld hardt hauer hoff inger land meier müller nau rath stein thal wald weg ler ner"
)
_STREETS = _words(
    "Mill Church Station High Garden School Bridge Castle Market Forest Meadow Orchard River Spring Park "
    "Harbour Chapel Abbey Linden Chestnut Rose Tulip Violet Willow Cedar Maple Elm Birch Poplar Hazel"
)
_WAYS = ("Street", "Road", "Lane", "Avenue", "Way")
_CITIES = (
    "Ostheim",
    "Brackwell",
    "Lindau",
    "Marston",
    "Neufurt",
    "Caldera",
    "Vestby",
    "Tarnow",
    "Elmira",
    "Porto Novo",
)


@dataclasses.dataclass(frozen=True)
class Identities:
    """Texts by person.

    Attributes:
        names: FIELDS as the person would write them without error.
        customer: Login.
        card: Loyalty card; the household's where it is shared.
        email: SHA-256 of the address.
        email_two: SHA-256 of the other address.
        phone: SHA-256 of the number.
    """

    names: list[tuple[str, str, str, str, str, int]]
    customer: list[str]
    card: list[str]
    email: list[str]
    email_two: list[str]
    phone: list[str]


def identities(config: AtelierConfig, people: People) -> Identities:
    """Draw all names and derive all identifiers."""
    draws = Draws(config.seed, -5)
    number = np.arange(len(people))
    home = people.household
    given = draws.below("given", number, len(_GIVEN))
    own_name = draws.uniform("own family name", number) < 0.12
    family = np.where(own_name, number + 1_000_003, home)
    first, last = draws.below("family", family, len(_FIRST)), draws.below("family end", family, len(_LAST))
    street, way = draws.below("street", home, len(_STREETS)), draws.below("way", home, len(_WAYS))
    house = 1 + draws.below("house", home, 140)
    city = draws.below("city", home, len(_CITIES))
    district = draws.below("district", home, 60)
    year = config.first_day.year - people.age
    names = [
        (
            _GIVEN[given[i]], f"{_FIRST[first[i]]}{_LAST[last[i]]}",
            f"{_STREETS[street[i]]} {_WAYS[way[i]]} {house[i]}", f"{10 + city[i] * 7}{district[i]:03d}",
            _CITIES[city[i]], int(year[i]),
        )
        for i in range(len(people))
    ]  # fmt: skip
    shared = people.shared_card
    space = config.prefix
    return Identities(
        names=names,
        customer=[f"c-{space}{i:07d}" for i in number],
        card=[f"l-{space}h{home[i]:07d}" if shared[i] else f"l-{space}p{i:07d}" for i in number],
        email=[_sha(f"{config.seed}{space}/shopper{i}@example.org") for i in number],
        email_two=[_sha(f"{config.seed}{space}/other{i}@example.com") for i in number],
        phone=[_sha(f"{config.seed}{space}/+000{i:09d}") for i in number],
    )


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fill_in(
    identities: Identities, person: int, key: int, day: int, config: AtelierConfig
) -> dict[str, str | int]:
    """One form as it was typed: some have a short name, an error or a wrong year."""
    given, family, street, postcode, city, year = identities.names[person]
    draws = Draws(config.seed, 1_000_000 + day)
    luck = draws.uniform("form", np.arange(8) + key * 8)
    if luck[0] < 0.5 * config.typo_share and given in _SHORT:
        given = _SHORT[given]
    if luck[1] < 0.4 * config.typo_share:
        given = _mistype(given, luck[2])
    if luck[3] < 0.4 * config.typo_share:
        family = _mistype(family, luck[4])
    if luck[5] < 0.3 * config.typo_share:
        street = street.replace("Street", "St").replace("Avenue", "Ave").replace("Road", "Rd")
    if luck[6] < 0.08 * config.typo_share:
        year += 1 if luck[7] < 0.5 else -1
    return dict(zip(FIELDS, (given, family, street, postcode, city, year), strict=True))


def _mistype(text: str, luck: float) -> str:
    """Swap, drop or double one letter after the first (Damerau's errors)."""
    place = 1 + int(luck * 997) % max(len(text) - 2, 1)
    kind = int(luck * 9973) % 3
    if kind == 0:
        return text[:place] + text[place + 1 : place + 2] + text[place : place + 1] + text[place + 2 :]
    if kind == 1:
        return text[:place] + text[place + 1 :]
    return text[:place] + text[place] + text[place:]
