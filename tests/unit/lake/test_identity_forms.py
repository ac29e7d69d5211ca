"""Matching forms: the same guest is found through errors of typing, a family is not taken for one person."""

import random
from collections.abc import Sequence

import pytest

from orchestration.lake import merges
from orchestration.lake.identity import stitch
from orchestration.lake.identity_probabilistic import match_forms, read_forms
from tests.unit.lake.identity_toys import Stream

GIVEN = [
    "Anna",
    "Bruno",
    "Clara",
    "Dora",
    "Emil",
    "Fritz",
    "Greta",
    "Hanna",
    "Igor",
    "Jana",
    "Karl",
    "Lotte",
    "Max",
    "Nora",
    "Otto",
    "Paula",
    "Rosa",
    "Sven",
    "Tilda",
    "Udo",
]
FAMILY = [
    "Albrecht",
    "Bergmann",
    "Christof",
    "Dorfler",
    "Engel",
    "Fischer",
    "Gerber",
    "Hofmann",
    "Imhof",
    "Jansen",
    "Keller",
    "Lehmann",
    "Moser",
    "Nagel",
]
STREETS = ["Mill", "Church", "Garden", "Harbour", "Castle", "Meadow", "Station", "Bridge"]

pytest.importorskip("splink", reason="matching forms needs splink==5.0.0")


def form(given: str, family: str, street: str, postcode: str, year: int) -> dict[str, object]:
    return {
        "form": {
            "given_name": given, "family_name": family, "street": street, "postcode": postcode, "city": "X",
            "birth_year": year,
        }
    }  # fmt: skip


def fill(stream: Stream, minute: int, names: str, content: dict[str, object]) -> None:
    import json

    stream.add(minute, names, action="checkout", detail=json.dumps(content))


def crowd(people: int, seed: int) -> tuple[Stream, Sequence[int]]:
    """People with two unconnected addresses each, a third of them with errors; and their partners at home."""
    stream, draw = Stream(), random.Random(seed)
    for i in range(people):
        given, partner = draw.sample(GIVEN, 2)
        family, year = draw.choice(FAMILY), draw.randrange(1950, 2000)
        street, postcode = (
            f"{draw.choice(STREETS)} Street {draw.randrange(1, 90)}",
            f"{draw.randrange(10000, 10400)}",
        )
        fill(stream, 3 * i, f"email_sha256:one{i}", form(given, family, street, postcode, year))
        typed = family[:2] + family[3:] if i % 3 == 0 else family
        short = street.replace("Street", "St.") if i % 4 == 0 else street.upper()
        fill(
            stream,
            3 * i + 1,
            f"email_sha256:two{i}",
            form(given, typed, short, postcode, year + (i % 5 == 0)),
        )
        fill(stream, 3 * i + 2, f"email_sha256:partner{i}", form(partner, family, street, postcode, year))
    return stream, range(people)


def test_guests_are_found_and_families_are_not_merged() -> None:
    stream, people = crowd(150, 4)
    found = stitch(stream.open())
    matched = match_forms(found)
    assert matched.records == 450
    pairs = {frozenset((p.left[1], p.right[1])) for p in matched.proposals}
    right = {frozenset((f"one{i}", f"two{i}")) for i in people}
    assert len(pairs & right) / len(pairs) >= 0.99
    assert len(pairs & right) / len(right) >= 0.9
    assert all(p.score is not None and p.score >= 0.99 and p.evidence["agreement"] for p in matched.proposals)


def test_proposals_become_merges_with_reasons_that_can_be_taken_back(tmp_path: object) -> None:
    stream, _ = crowd(60, 9)
    found = stitch(stream.open())
    proposals = match_forms(found).proposals
    entries = merges.merge(tmp_path, proposals, "probabilistic", "splink")  # type: ignore[arg-type]
    joined = stitch(stream.open(), ledger=entries, anchors=found.anchors)
    assert joined.person_of("email_sha256", "one1") == joined.person_of("email_sha256", "two1")
    merges.undo_all(tmp_path, [entry.entry_id for entry in entries])  # type: ignore[arg-type]
    apart = stitch(stream.open(), ledger=merges.read_ledger(tmp_path), anchors=joined.anchors)  # type: ignore[arg-type]
    assert apart.links.equals(found.links)


def test_a_card_under_which_two_people_filled_in_forms_matches_nobody() -> None:
    stream, _ = crowd(40, 2)
    fill(stream, 900, "loyalty_card:home", form("Anna", "Zeisig", "Mill Street 1", "99999", 1980))
    fill(stream, 901, "loyalty_card:home", form("Bruno", "Zeisig", "Mill Street 1", "99999", 1979))
    fill(stream, 902, "email_sha256:anna", form("Anna", "Zeisig", "Mill Street 1", "99999", 1980))
    proposals = match_forms(stitch(stream.open())).proposals
    assert not any("home" in (p.left[1], p.right[1]) for p in proposals)


def test_forms_are_normalised_and_broken_ones_ignored() -> None:
    stream = Stream()
    fill(stream, 0, "email_sha256:a", form(" ÄNNE ", "Grün", "Mühl Str. 3", " 10115", 1980))
    fill(stream, 1, "email_sha256:b", {"form": {"given_name": "", "family_name": "x"}})
    stream.add(2, "email_sha256:c", detail='{"form": [1,')
    found = stitch(stream.open())
    (row,) = read_forms(found.con).to_pylist()
    assert (row["given_name"], row["family_name"], row["street"], row["postcode"]) == (
        "anne", "grun", "muhl strasse 3", "10115",
    )  # fmt: skip


def test_few_forms_teach_nothing_and_thresholds_are_checked() -> None:
    stream = Stream()
    fill(stream, 0, "email_sha256:a", form("Anna", "Engel", "Mill Street 1", "10000", 1980))
    found = stitch(stream.open())
    assert match_forms(found).proposals == []
    with pytest.raises(ValueError, match="threshold is 1; expected above 0 and below 1"):
        match_forms(found, threshold=1)
