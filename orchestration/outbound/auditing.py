"""Looking again at everything that left: is it whole, as many rows as chosen, and nobody without consent.

Every place is read back as its receiver would read it; nothing is taken from what the export remembers of itself.

Belongs here: reading places, judging them, taking out who may not stay. Does not belong here: writing audiences.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Collection
from typing import Any

from contracts.outbound import OutboundError, Webhook
from contracts.retailer import Retailer
from contracts.settings import Settings
from orchestration.outbound import files, sql
from orchestration.outbound.audiences import lawful
from orchestration.outbound.outbox import Outbox
from orchestration.outbound.people import People, load_people


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one place holds of one audience.

    Attributes:
        audience: Name.
        destination: Name.
        rows: Rows found there; of a webhook, members that it was or will be told of.
        unlawful: Of these, rows of persons who do not allow the audience's purpose, or were erased.
        problem: Why it cannot be judged, or what is wrong with it.
    """

    audience: str
    destination: str
    rows: int
    unlawful: int
    problem: str = ""


def audit(settings: Settings, retailer: Retailer, people: People | None = None) -> list[Finding]:
    """Judge every place that something was written to.

    Raises:
        OutboundError: The lake cannot be used.
    """
    if not (settings.outbound / "outbox.sqlite").is_file():
        return []
    known = people or load_people(settings, retailer)
    with Outbox(settings.outbound) as outbox:
        return [finding for finding, _ in _findings(settings, retailer, known, outbox)]


def judge(settings: Settings, retailer: Retailer) -> dict[str, tuple[bool, str, list[dict[str, Any]]]]:
    """What the asset's checks ask.

    Returns:
        By name: whether it holds, in words, and the evidence by place. ``complete``: nothing failed; ``consent``: nobody
        who may not be there; ``counts``: as many rows as were chosen last, files whole; ``deliveries``: no destination
        is dead.

    Raises:
        OutboundError: The lake cannot be used.
    """
    if not (settings.outbound / "outbox.sqlite").is_file():
        return dict.fromkeys(
            ("complete", "consent", "counts", "deliveries"), (True, "Nothing has left yet.", [])
        )
    people = load_people(settings, retailer)
    found = audit(settings, retailer, people)
    with Outbox(settings.outbound) as outbox:
        chosen, waiting, problems = outbox.chosen(), outbox.waiting(), outbox.problems()
    rows = [{**dataclasses.asdict(finding), "chosen": chosen.get(finding.audience)} for finding in found]
    unlawful = sum(finding.unlawful for finding in found)
    broken = [row for row in rows if row["problem"]]
    wrong = [row for row in rows if row["rows"] != row["chosen"]]
    dead = sorted({message.destination for message in waiting if message.dead})
    held = [{"destination": m.destination, "audience": m.audience, "attempts": m.attempts, "error": m.error}
            for m in waiting[:20]]  # fmt: skip
    return {
        "complete": (not problems, "; ".join(problems) or "Nothing failed.", []),
        "consent": (
            unlawful == 0 and not broken,
            f"{unlawful} rows without consent at {len(found)} places.",
            rows,
        ),
        "counts": (
            not wrong and not broken,
            f"{len(wrong)} of {len(found)} places differ from what was chosen.",
            rows,
        ),
        "deliveries": (not dead, f"Dead: {', '.join(dead) or 'none'}; {len(waiting)} messages wait.", held),
    }


def expel_unlawful(
    settings: Settings, retailer: Retailer, people: People, outbox: Outbox, fresh: Collection[tuple[str, str]]
) -> list[Finding]:
    """Take out of places that were not written anew whoever may not stay there.

    Args:
        settings: The installation.
        retailer: The shop.
        people: Everybody.
        outbox: The record of places.
        fresh: (audience, destination) that were written by this run.

    Returns:
        Places out of which somebody was taken.
    """
    done = []
    for finding, persons in _findings(settings, retailer, people, outbox):
        if not persons or (finding.audience, finding.destination) in fresh:
            continue
        for place in outbox.places():
            if (place.audience, place.destination) != (finding.audience, finding.destination):
                continue
            if place.kind == "files":
                files.forget(pathlib.Path(place.place), place.detail, persons, dry_run=False)
            else:
                sql.forget(place.detail, place.place, persons, False, f"destinations.{place.destination}")
        webhook = retailer.destinations.get(finding.destination)
        if isinstance(webhook, Webhook):
            at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            outbox.expel(finding.destination, finding.audience, "marketing", persons, webhook.batch, at)
        done.append(finding)
    return done


def _findings(
    settings: Settings, retailer: Retailer, people: People, outbox: Outbox
) -> list[tuple[Finding, set[str]]]:
    found: list[tuple[Finding, set[str]]] = []

    def judge(audience: str, destination: str, persons: list[str], problem: str = "") -> None:
        stated = retailer.audiences.get(audience)
        allowed = set() if stated is None else lawful(people, settings, stated.purpose)
        theirs = [person for person in persons if person not in allowed]
        found.append((Finding(audience, destination, len(persons), len(theirs), problem), set(theirs)))

    for place in outbox.places():
        try:
            if place.kind == "files":
                path = pathlib.Path(place.place)
                problem = "" if files.intact(path) else "the file is not the one that its manifest names"
                rows = files.read(path, place.detail) if path.is_file() else None
                persons = [] if rows is None or not rows.num_rows else rows["person_id"].to_pylist()
            else:
                where, problem = f"destinations.{place.destination}", ""
                persons = sql.persons_of(place.detail, place.place, place.audience, where)
        except (OutboundError, OSError, ValueError, KeyError) as error:
            found.append((Finding(place.audience, place.destination, 0, 0, str(error)), set()))
            continue
        judge(place.audience, place.destination, persons, problem)
    for (destination, audience), members in sorted(outbox.members().items()):
        judge(audience, destination, members)
    return found
