"""The command `continuum`: one module per verb, imported only when its verb is called.

Belongs here: parsing, printing, exit codes. Does not belong here: work that a Dagster asset, the
server or a bench does; a verb calls those.

Exit codes: 0 done; 1 the work failed or was refused; 2 the call cannot be understood (click's own).
"""

from __future__ import annotations

import importlib

import click

VERBS = {
    "up": "run the main job if needed, then open all services",
    "run": "run a Dagster job: full_pipeline, retrain, release, people, relationship, ...",
    "recommend": "ask the live server for recommendations",
    "explain": "open one decision: who, what, why, from which release",
    "next-action": "what to do next for a customer: contact or not, how, when, with what, why",
    "events": "send events to the live server; read and replay what was refused",
    "sources": "see what your own files and tables mean, and take in what is new",
    "audiences": "export who matches, within consent, as files, SQL tables and signed webhooks",
    "erase": "remove a person from every place that holds them",
    "releases": "list, show, promote and roll back releases",
    "bench": "measure, and print numbers beside their bars",
    "doctor": "check this machine and this installation",
}


class LazyVerbs(click.Group):
    """A click group that imports a verb's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all verbs, in the order of a newcomer's path."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return its command, or None for an unknown verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(
            f"orchestration.cli.{cmd_name.replace('-', '_')}"
        ).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyVerbs, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Continuum: from omnichannel events to live, individual answers, and back.

    State lives under CONTINUUM_HOME (default .continuum); RETAILER names the shop.
    """
