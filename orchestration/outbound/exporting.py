"""Exporting: every audience to every destination of its own, and out of those that it no longer goes to.

A destination that fails does not stop the others; what failed is told at the end and done again by the next run.

Belongs here: the order of the steps, what one run did. Does not belong here: how one destination is written.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from contracts.events import Purpose
from contracts.outbound import Files, OutboundError, Table, Webhook
from contracts.retailer import Retailer
from contracts.settings import Settings
from orchestration.outbound import files, sql
from orchestration.outbound.audiences import Selection, check_audience, lawful, select
from orchestration.outbound.auditing import expel_unlawful
from orchestration.outbound.outbox import Outbox
from orchestration.outbound.people import People, load_people
from orchestration.outbound.records import Place, alone
from orchestration.outbound.sending import Sender, Sent, open_line


@dataclasses.dataclass(frozen=True)
class Step:
    """What was done for one audience at one destination.

    Attributes:
        audience: Name.
        destination: Name.
        place: File, table, or the webhook's name.
        rows: That are there now.
        changes: ``added``, ``changed``, ``removed`` rows, where the destination can tell.
        error: Why it was not done.
    """

    audience: str
    destination: str
    place: str
    rows: int
    changes: dict[str, int]
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What a run did.

    Attributes:
        now: The shop's clock.
        counts: By audience, how many matched, fell out and why, and leave.
        steps: By audience and destination.
        sent: By webhook.
        retired: Places that were emptied because the yaml no longer sends there.
        errors: What failed, in words.
    """

    now: dt.datetime
    counts: dict[str, dict[str, int]]
    steps: tuple[Step, ...]
    sent: tuple[Sent, ...]
    retired: tuple[str, ...]
    errors: tuple[str, ...]


def check_outgoing(retailer: Retailer, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Hold the wanted audiences against the fields that there are.

    Returns:
        Their names; all where none is wanted by name.

    Raises:
        OutboundError: No such audience, or one that cannot be used.
    """
    for name in names:
        if name not in retailer.audiences:
            known = ", ".join(retailer.audiences) or f"none: {retailer.name}.yaml has no `audiences`"
            raise OutboundError(f"there is no audience '{name}'; expected one of: {known}")
    wanted = tuple(names) or tuple(retailer.audiences)
    for name in wanted:
        check_audience(name, retailer.audiences[name])
    return wanted


def export(
    settings: Settings, retailer: Retailer, names: Sequence[str] = (), patience: float = 0.0,
    say: Callable[[str], None] = lambda line: None,
) -> Exported:  # fmt: skip
    """Bring every destination to what its audiences are now, and send what waits.

    Args:
        settings: The installation.
        retailer: The shop.
        names: Audiences, or all; only a run over all empties places that are no longer wanted.
        patience: Seconds to wait for receivers that fail at first.
        say: Receives one line per step.

    Raises:
        OutboundError: The yaml or the lake cannot be used; nothing was written.
        OutboxBusyError: Another process exports.
    """
    wanted = check_outgoing(retailer, names)
    with alone(settings.outbound), Outbox(settings.outbound) as outbox:
        people = load_people(settings, retailer)
        counts: dict[str, dict[str, int]] = {}
        steps: list[Step] = []
        errors: list[str] = []
        for name in wanted:
            try:
                chosen = select(people, settings, name, retailer.audiences[name])
            except OutboundError as error:
                errors.append(str(error))
                continue
            counts[name] = chosen.counts
            outbox.choose(name, chosen.rows.num_rows)
            say(
                f"{name}: "
                + ", ".join(f"{value} {what.replace('_', ' ')}" for what, value in chosen.counts.items())
            )
            for destination in chosen.audience.destinations:
                step = _step(settings, retailer, people, outbox, chosen, destination)
                steps.append(step)
                say(f"{name} to {destination}: {step.error or f'{step.rows} rows'}")
        retired = [] if names else _retire(settings, retailer, outbox, errors)
        fresh = {(step.audience, step.destination) for step in steps if not step.error}
        for expelled in expel_unlawful(settings, retailer, people, outbox, fresh):
            say(
                f"{expelled.audience} at {expelled.destination}: {expelled.unlawful} rows without consent taken out"
            )
        sent = _send(settings, retailer, people, outbox, patience, errors)
        errors += [f"{step.audience} to {step.destination}: {step.error}" for step in steps if step.error]
        outbox.complain(errors)
        return Exported(people.now, counts, tuple(steps), tuple(sent), tuple(retired), tuple(errors))


def send(
    settings: Settings, retailer: Retailer, patience: float = 0.0, revive: bool = False
) -> tuple[tuple[Sent, ...], tuple[str, ...]]:
    """Send what waits, without choosing anybody anew.

    Args:
        settings: The installation.
        retailer: The shop.
        patience: As `export`.
        revive: Try dead messages again.

    Returns:
        What became of each webhook's messages, and what failed in words.

    Raises:
        OutboundError: The lake cannot be used.
        OutboxBusyError: Another process exports or sends.
    """
    with alone(settings.outbound), Outbox(settings.outbound) as outbox:
        if revive:
            outbox.revive()
        if not outbox.waiting():
            return (), ()
        errors: list[str] = []
        people = load_people(settings, retailer)
        return tuple(_send(settings, retailer, people, outbox, patience, errors)), tuple(errors)


def _step(
    settings: Settings, retailer: Retailer, people: People, outbox: Outbox, chosen: Selection, name: str
) -> Step:
    destination = retailer.destinations[name]
    try:
        if isinstance(destination, Files):
            path = files.path_of(destination, name, chosen.name, settings.outbound)
            outbox.note(Place(name, chosen.name, "files", str(path), destination.format))
            files.write(path, destination.format, chosen.rows, _manifest(retailer, people, chosen, name))
            changes: dict[str, int] = {}
            place = str(path)
        elif isinstance(destination, Table):
            place, address = destination.table, retailer.connections[destination.connection]
            outbox.note(Place(name, chosen.name, "sql", place, address))
            changes = sql.write(
                address,
                place,
                chosen.name,
                chosen.key,
                chosen.rows,
                destination.mode,
                people.now,
                f"destinations.{name}",
            )
        else:
            open_line(name, destination)  # A secret that is missing is told before anything is written down.
            place = name
            rows = [
                (row[chosen.key], row["person_id"], files.json_row(row)) for row in chosen.rows.to_pylist()
            ]
            at = people.now.isoformat(timespec="seconds")
            found = outbox.enqueue(name, chosen.name, chosen.audience.purpose, rows, destination.batch, at)
            changes = {str(change): number for change, number in found.items()}
    except OutboundError as error:
        return Step(chosen.name, name, "", 0, {}, str(error))
    return Step(chosen.name, name, place, chosen.rows.num_rows, changes)


def _manifest(retailer: Retailer, people: People, chosen: Selection, destination: str) -> dict[str, Any]:
    audience = chosen.audience
    return {
        "retailer": retailer.name, "simulated": retailer.simulated, "audience": chosen.name, "title": audience.title,
        "destination": destination, "purpose": audience.purpose, "condition": audience.condition, "as_of": people.now,
        "made_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), "counts": chosen.counts, "lake": people.versions,
    }  # fmt: skip


def _retire(settings: Settings, retailer: Retailer, outbox: Outbox, errors: list[str]) -> list[str]:
    """Empty what the yaml no longer asks for, so that no copy stays that nobody keeps true."""
    places = set()
    for name, audience in retailer.audiences.items():
        for target in audience.destinations:
            destination = retailer.destinations[target]
            if isinstance(destination, Files):
                places.add((name, str(files.path_of(destination, target, name, settings.outbound))))
            elif isinstance(destination, Table):
                places.add((name, f"{retailer.connections[destination.connection]} {destination.table}"))
    retired = []
    for place in outbox.places():
        key = place.place if place.kind == "files" else f"{place.detail} {place.place}"
        if (place.audience, key) in places:
            continue
        try:
            if place.kind == "files":
                files.remove(pathlib.Path(place.place))
            else:
                sql.clear(
                    place.detail, place.place, place.audience, f"former destination {place.destination}"
                )
        except (OutboundError, OSError) as error:
            errors.append(
                f"{place.audience} is no longer sent to {place.destination}, and could not be removed there: {error}"
            )
            continue
        outbox.forget_place(place)
        retired.append(f"{place.audience} at {place.destination}")
    for name, audience_name in sorted(outbox.members()):
        webhook, known = retailer.destinations.get(name), retailer.audiences.get(audience_name)
        if isinstance(webhook, Webhook) and (known is None or name not in known.destinations):
            at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            # Everybody is told to have left, which is lawful for any purpose.
            outbox.enqueue(name, audience_name, "marketing", [], webhook.batch, at)
            retired.append(f"{audience_name} at {name}")
    for name in sorted({name for name, _ in outbox.members()} | {m.destination for m in outbox.waiting()}):
        if not isinstance(retailer.destinations.get(name), Webhook):
            lost = outbox.retire(name)
            errors.append(
                f"{name} is no longer a webhook of the yaml: it was not told that people left, and {lost} messages "
                "were given up"
            )
    return retired


def _send(
    settings: Settings, retailer: Retailer, people: People, outbox: Outbox, patience: float, errors: list[str]
) -> list[Sent]:
    cache: dict[Purpose, set[str]] = {}

    def allowed(purpose: Purpose) -> set[str]:
        if purpose not in cache:
            cache[purpose] = lawful(people, settings, purpose)
        return cache[purpose]

    sender = Sender(outbox, {"retailer": retailer.name, "simulated": retailer.simulated}, allowed)
    done = []
    for name, destination in retailer.destinations.items():
        if not isinstance(destination, Webhook) or outbox.head(name) is None:
            continue
        try:
            found = sender.run(open_line(name, destination), patience)
        except OutboundError as error:
            errors.append(str(error))
            continue
        done.append(found)
        if found.dead:
            head = outbox.head(name)
            why = found.error or (head.error if head else "")
            errors.append(f"destination {name} is dead: {found.dead} messages used up their attempts ({why})")
    return done
