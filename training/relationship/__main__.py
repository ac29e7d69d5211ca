"""``python -m training.relationship FAMILY --config FILE``: one config in, one bundle out.

Exit codes are those of ``python -m training``: 0 written, 2 the command or the config cannot be used.

Belongs here: the command line. Does not belong here: training itself (`train.py`).
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from training.config import ConfigError, read_config
from training.reporting import reporting

FROM_LAKE = ("segments", "contacts", "sessions", "visits")


def _from_lake(
    family: str, config: pathlib.Path, progress: Callable[[str], None], report: Callable[[Any], None]
) -> None:
    """Train a family that reads identities, sessions and moments from the lake."""
    if family == "segments":
        from training.relationship import train_segments

        report(train_segments.train(read_config(config, train_segments.SegmentsConfig), progress))
    elif family == "contacts":
        from training.relationship import train_contacts

        report(train_contacts.train(read_config(config, train_contacts.ContactsConfig), progress))
    elif family == "sessions":
        from training.relationship import train_sessions

        report(train_sessions.train(read_config(config, train_sessions.SessionsConfig), progress))
    else:
        from training.relationship import train_visits

        report(train_visits.train(read_config(config, train_visits.VisitsConfig), progress))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.relationship", description="Train a relationship model from one config."
    )
    parser.add_argument(
        "family",
        choices=("customers", "intent", "uplift", *FROM_LAKE),
        help="churn and value; intent or uplift from a file; from the lake: segments, effects of contacts, intent in "
        "sessions, next visit",
    )
    parser.add_argument("--config", type=pathlib.Path, required=True, metavar="FILE", help="JSON config")
    parser.add_argument("--quiet", action="store_true", help="print no progress")
    given = parser.parse_args(arguments)

    from training.relationship import train, train_uplift

    try:
        with reporting(given.quiet) as (progress, report):
            if given.family == "customers":
                report(train.train_customers(read_config(given.config, train.CustomersConfig), progress))
            elif given.family == "uplift":
                report(train_uplift.train(read_config(given.config, train_uplift.UpliftConfig), progress))
            elif given.family in FROM_LAKE:
                _from_lake(given.family, given.config, progress, report)
            else:
                report(train.train_intent(read_config(given.config, train.IntentConfig), progress))
    except ConfigError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
