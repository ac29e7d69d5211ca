"""Kept runs: parts that were not run keep their numbers, and say where they were measured."""

import json
import pathlib

import pytest

from tests.benchmarks import report


def test_parts_that_were_not_run_are_carried_over(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "KEPT", tmp_path)
    new = {
        "measured": {"a_x": 2.0},
        "setup": {"a_run": "new"},
        "left": {"b": ("b_", "bee_"), "c": ("c_",)},
    }
    assert report.carried("some", new) is new, "there is nothing to carry over"
    kept = {
        "measured": {"a_x": 1.0, "a_y": 1.0, "b_x": 3.0, "bee_y": 4.0},
        "setup": {"commit": "old", "a_run": "old", "b_run": "its own"},
    }
    (tmp_path / "some.json").write_text(json.dumps(kept))
    found = report.carried("some", new)
    assert found["measured"] == {"a_x": 2.0, "b_x": 3.0, "bee_y": 4.0}
    assert found["setup"] == {"a_run": "new", "b_run": "its own", "b_commit": "old"}
    kept["setup"] |= {"b_commit": "older"}
    (tmp_path / "some.json").write_text(json.dumps(kept))
    assert report.carried("some", new)["setup"]["b_commit"] == "older"
    whole = {"measured": {"a_x": 2.0}, "setup": {}}
    assert report.carried("some", whole) is whole, "a bench without parts is replaced as a whole"
