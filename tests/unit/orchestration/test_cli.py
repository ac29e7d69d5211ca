"""Every verb explains itself, and errors are words, not tracebacks."""

from __future__ import annotations

import json
import pathlib

import pytest
from click.testing import CliRunner

from orchestration.cli import VERBS, main


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help(verb: str) -> None:
    result = CliRunner().invoke(main, [verb, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_help_lists_every_verb() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    for verb in VERBS:
        assert verb in output


def test_an_unknown_bench_names_the_known() -> None:
    result = CliRunner().invoke(main, ["bench", "speed-of-light"])
    assert result.exit_code == 1
    assert "next-basket" in result.output


def test_benches_are_listed_as_json() -> None:
    result = CliRunner().invoke(main, ["bench", "--json"])
    assert {row["bench"] for row in json.loads(result.output)} >= {
        "next-basket",
        "point-in-time",
        "serving",
        "pipeline",
    }


def test_a_server_that_is_away_is_said_so() -> None:
    result = CliRunner().invoke(main, ["recommend", "1", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "continuum up" in result.output


def test_a_broken_events_file_names_the_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event_id": "1"}\n{broken\n')
    result = CliRunner().invoke(main, ["events", "send", str(path)])
    assert result.exit_code == 1
    assert "line 2" in result.output


def test_an_unknown_job_names_the_known(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTINUUM_HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["run", "everything"])
    assert result.exit_code == 1
    assert "full_pipeline" in result.output


def test_a_home_holds_one_shop(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTINUUM_HOME", str(tmp_path))
    (tmp_path / "SHOP").write_text("complete_journey\n")
    monkeypatch.setenv("RETAILER", "atelier")
    for verb in (["run", "people"], ["up", "--no-run"]):
        done = CliRunner().invoke(main, verb)
        assert done.exit_code == 1
        assert "holds the shop 'complete_journey', and RETAILER is 'atelier'" in done.output
