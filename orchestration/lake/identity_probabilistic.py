"""Guests who left a name: matching the forms people fill in, by Fellegi and Sunter's model with Splink.

Deterministic stitching leaves persons apart who wrote to the shop under another address or paid as a
guest. Their forms (name, street, postcode, birth year) are compared pair by pair; weights are learned by
expectation maximisation without labels (Fellegi and Sunter 1969; Splink, Linacre et al. 2022). Because a
household shares name and address, which the model takes for independent evidence, agreement on the given
name and the birth year is required on top of the score, and an identifier under which people of different
names filled in forms (one card for all) matches nobody. What matches becomes proposals for the merge ledger
with their evidence, never a silent merge; a form that fits two persons is left alone.

Belongs here: forms -> proposals. Does not belong here: what a merge does (`merges.py`, `identity.py`).
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import duckdb
import pyarrow as pa

from contracts.identity import STRONG_KINDS
from feature_repo.snapshots import connect
from orchestration.lake.identity import Stitched
from orchestration.lake.identity_events import EVENT_PERSONS_SQL
from orchestration.lake.merges import Proposal

FIELDS = ("given_name", "family_name", "street", "postcode", "birth_year")
"""What a form must say; other fields of it are not compared."""

LEAST_RECORDS = 20
"""Fewer forms teach no weights."""

SHORT_WAYS = (
    ("street", "st"),
    ("road", "rd"),
    ("avenue", "ave"),
    ("lane", "ln"),
    ("square", "sq"),
    ("strasse", "str"),
)


class SplinkMissingError(ImportError):
    """Splink is not installed; the message says what is needed."""


@dataclasses.dataclass(frozen=True)
class Matched:
    """What the forms said.

    Attributes:
        records: Forms that were compared, one per identifier and spelling.
        pairs: Pairs above the threshold whose persons differ.
        proposals: Merges to write, best pair of each two persons.
        ambiguous: Persons left alone because they fit several others about equally.
    """

    records: int
    pairs: int
    proposals: list[Proposal]
    ambiguous: int


def read_forms(con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Forms in the events of a stitched connection (`identity.stitch`), normalised.

    A form is an object ``form`` in an event's detail. Returns record_id, kind, value (the most trusted
    identifier of the event), person_id, and `FIELDS` as lower-case text without accents.
    """
    ranks = ", ".join(f"'{kind}'" for kind in STRONG_KINDS)
    ways = "trim(strip_accents(lower(detail->>'$.form.street')))"
    for whole, short in SHORT_WAYS:
        ways = f"regexp_replace({ways}, '\\b{short}\\b\\.?', '{whole}', 'g')"
    return con.sql(
        f"""with forms as (
            select source, event_id, identifiers,
                trim(strip_accents(lower(detail->>'$.form.given_name'))) as given_name,
                trim(strip_accents(lower(detail->>'$.form.family_name'))) as family_name,
                {ways} as street, trim(detail->>'$.form.postcode') as postcode,
                try_cast(detail->>'$.form.birth_year' as integer) as birth_year
            from events where contains(detail, '"form"') and json_valid(detail)
        ), owned as (
            select forms.*, p.person_id from forms
            join ({EVENT_PERSONS_SQL}) p using (source, event_id) where p.person_id is not null
        ), named as (
            select owned.*, node.kind as kind, node.value as value, row_number() over (
                partition by source, event_id
                order by coalesce(list_position([{ranks}], node.kind), 99), node.kind, node.value) as place
            from owned join bundles using (identifiers) join members using (bundle) join nodes node using (node))
        select row_number() over (order by min(source), min(event_id)) as record_id, kind, value,
            person_id, given_name, family_name, street, postcode, birth_year
        from named where place = 1 and given_name <> '' and family_name <> ''
        group by kind, value, person_id, given_name, family_name, street, postcode, birth_year order by record_id"""
    ).to_arrow_table()


def match_forms(stitched: Stitched, threshold: float = 0.99, margin: float = 4.0) -> Matched:
    """Compare the forms of different persons and propose merges.

    Args:
        stitched: Outcome of `identity.stitch`, its connection still open.
        threshold: Least probability of a match, above 0 and below 1.
        margin: A person's best match must beat the next person by this weight (in bits).

    Raises:
        SplinkMissingError: Splink is not installed.
        ValueError: The threshold is out of its range.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}; expected above 0 and below 1")
    records = read_forms(stitched.con)
    if records.num_rows < LEAST_RECORDS:
        return Matched(records.num_rows, 0, [], 0)
    con = connect()
    predicted = _predict(con, records, threshold)
    con.register("records_in", records)
    con.register("predicted_in", predicted)
    con.execute(
        """create temp table of_many as select distinct l.person_id from records_in l join records_in r
        using (person_id) where l.record_id < r.record_id and (abs(l.birth_year - r.birth_year) > 1
            or jaro_winkler_similarity(l.given_name, r.given_name) < 0.82)"""
    )
    pairs = con.sql(
        """select l.person_id as left_person, r.person_id as right_person, l.kind as left_kind,
            l.value as left_value, r.kind as right_kind, r.value as right_value,
            match_probability as probability, match_weight as weight, gamma_given_name, gamma_family_name,
            gamma_street, gamma_postcode, gamma_birth_year
        from predicted_in p join records_in l on l.record_id = p.record_id_l
        join records_in r on r.record_id = p.record_id_r
        where l.person_id <> r.person_id and gamma_given_name > 0 and gamma_birth_year > 0
            and l.person_id not in (select person_id from of_many) and r.person_id not in (select person_id from of_many)
        order by weight desc, left_kind, left_value, right_kind, right_value"""
    ).to_arrow_table().to_pylist()  # fmt: skip
    chosen, ambiguous = _choose(pairs, margin)
    con.close()
    return Matched(records.num_rows, len(pairs), [_proposal(pair) for pair in chosen], ambiguous)


def _predict(con: duckdb.DuckDBPyConnection, records: pa.Table, threshold: float) -> pa.Table:
    """Splink's pairs above a probability, weights learned on these records."""
    try:
        import splink.comparison_level_library as levels
        import splink.comparison_library as compare
        from splink import DuckDBAPI, Linker, SettingsCreator, block_on
    except ImportError as error:
        raise SplinkMissingError(
            "matching guests needs splink; expected splink==5.0.0 to be installed"
        ) from error
    logging.getLogger("splink").setLevel(logging.ERROR)
    year = compare.CustomComparison(
        output_column_name="birth_year",
        comparison_levels=[
            levels.NullLevel("birth_year"),
            levels.ExactMatchLevel("birth_year"),
            levels.AbsoluteDifferenceLevel("birth_year", difference_threshold=1),
            levels.ElseLevel(),
        ],
    )
    settings = SettingsCreator(
        link_type="dedupe_only",
        unique_id_column_name="record_id",
        comparisons=[
            compare.JaroWinklerAtThresholds("given_name", [0.92, 0.82]),
            compare.JaroWinklerAtThresholds("family_name", [0.92]),
            compare.JaroWinklerAtThresholds("street", [0.94]),
            compare.ExactMatch("postcode"),
            year,
        ],
        blocking_rules_to_generate_predictions=[
            block_on("postcode", "birth_year"),
            block_on("postcode", "family_name"),
            block_on("family_name", "given_name", "birth_year"),
        ],
    )
    api = DuckDBAPI(connection=con)
    linker = Linker(
        api.register(records.drop_columns(["kind", "value", "person_id"])),
        settings,
        log_level=None,
    )
    linker.training.estimate_probability_two_random_records_match(
        [
            block_on("family_name", "given_name", "birth_year"),
            block_on("postcode", "given_name", "birth_year"),
        ],
        recall=0.8,
    )
    linker.training.estimate_u_using_random_sampling(max_pairs=1e6, seed=1)
    for rule in (block_on("postcode", "family_name"), block_on("given_name", "birth_year")):
        linker.training.estimate_parameters_using_expectation_maximisation(rule)
    found = linker.inference.predict(threshold_match_probability=threshold)
    table: pa.Table = found.as_duckdbpyrelation().to_arrow_table()
    return table


def _choose(pairs: list[dict[str, Any]], margin: float) -> tuple[list[dict[str, Any]], int]:
    """The best pair of each two persons, unless one of them fits a third about as well."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for pair in pairs:
        best.setdefault(tuple(sorted((pair["left_person"], pair["right_person"]))), pair)
    by_person: dict[str, list[dict[str, Any]]] = {}
    for two, pair in best.items():
        for who in two:
            by_person.setdefault(who, []).append(pair)
    unsure: set[str] = set()
    second: set[int] = set()
    for who, found in by_person.items():
        others = [p["right_person"] if p["left_person"] == who else p["left_person"] for p in found]
        for other, pair in zip(others[1:], found[1:], strict=True):
            if tuple(sorted((others[0], other))) in best:
                continue  # All three agree with one another.
            if found[0]["weight"] - pair["weight"] < margin:
                unsure.add(who)
            second.add(id(pair))
    chosen = [pair for two, pair in best.items() if not unsure & set(two) and id(pair) not in second]
    return chosen, len(unsure)


def _proposal(pair: dict[str, Any]) -> Proposal:
    agreement = {
        name: int(pair[f"gamma_{name}"])
        for name in ("given_name", "family_name", "street", "postcode", "birth_year")
    }
    return Proposal(
        (pair["left_kind"], pair["left_value"]),
        (pair["right_kind"], pair["right_value"]),
        {"agreement": agreement, "weight": round(float(pair["weight"]), 3), "model": "splink"},
        float(pair["probability"]),
    )
