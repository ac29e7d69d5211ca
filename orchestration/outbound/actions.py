"""Next best actions as rows that can be chosen and exported like people.

Only advice to contact somebody that has not expired leaves; advice to leave a customer alone stays.

Belongs here: the lake's table beside what is known of each person. Does not belong here: making the advice.
"""

from __future__ import annotations

from contracts.actions import NONE
from contracts.outbound import OutboundError
from contracts.settings import Settings
from feature_repo.snapshots import SnapshotError, attach, literal, quoted
from orchestration.lake.next_actions import ACTIONS
from orchestration.outbound.fields import PEOPLE
from orchestration.outbound.people import People


def load_actions(people: People, settings: Settings) -> None:
    """Make table `actions` beside `people`: every field of a person, and those of the action.

    Raises:
        OutboundError: There is no advice yet.
    """
    con = people.con
    try:
        people.versions[ACTIONS.name] = attach(con, "advice", ACTIONS.path(settings.lake))
    except SnapshotError as error:
        raise OutboundError("there are no next best actions yet: run the job relationship") from error
    columns = ", ".join(f"p.{quoted(name)}" for name in PEOPLE)
    con.execute(
        f"""create or replace temp table actions as
        select a.action_id, coalesce(l.person_id, a.person) as person_id, a.customer_id, a.purpose, {columns},
            a.kind, a.channel, a.subject, round(a.gain, 4) as gain, a.at, a.expires_at, a.reason,
            floor(epoch(a.at - getvariable('now')) / 3600.0) as hours_until
        from advice a left join links l on l.kind = 'customer' and l.value = a.customer_id
        left join people p on p.person_id = coalesce(l.person_id, a.person)
        where a.kind <> {literal(NONE)} and a.expires_at > getvariable('now')"""
    )
