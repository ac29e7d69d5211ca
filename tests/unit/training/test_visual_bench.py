"""The bench `visual`: parts, what is kept of them, bundles that are taken as they are."""

import pathlib
import sys
import types
from typing import Any

import pytest

from tests.benchmarks import visual
from tests.benchmarks.meaning import meaning
from tests.benchmarks.visual_bundles import finished
from tests.benchmarks.visual_embedding import (
    coarse_config,
    fashion_config,
    forget_start,
    grocery_config,
    text_config,
    trained,
)
from training.config import Bundle, write_bundle
from training.visual.config import check_embedder


def _bench(home: pathlib.Path, **more: Any) -> visual.Bench:
    told = {"quick": False, "home": home, "data": home, "progress": lambda line: None, "bundles": {}, **more}
    return visual.Bench(**told)


def test_what_was_measured_is_kept_until_its_parts_change(tmp_path: pathlib.Path) -> None:
    bench, calls = _bench(tmp_path), []

    def measure() -> dict[str, Any]:
        calls.append(1)
        return {"value": len(calls)}

    sources = ("training/evaluation/retrieval.py",)
    assert bench.kept("a", ["graph"], sources, measure) == {"value": 1}
    assert bench.kept("a", ["graph"], sources, measure) == {"value": 1}
    assert bench.kept("a", ["other graph"], sources, measure) == {"value": 2}
    assert bench.kept("b", ["graph"], sources, measure) == {"value": 3}
    assert _bench(tmp_path, fresh=True).kept("a", ["graph"], sources, measure) == {"value": 4}


def test_words_of_a_module_may_change_its_meaning_may_not(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""Words."""\n\n\ndef f():\n    """More."""\n    return 1  # one\n')
    first = meaning(path)
    path.write_text('"""Other words."""\n\n\ndef f():\n    """Less."""\n    return 1\n')
    assert meaning(path) == first
    path.write_text("def f():\n    return 2\n")
    assert meaning(path) != first


def test_the_worst_catalogue_counts_and_facts_say_their_part(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = types.ModuleType("made_up_parts")
    made.one = lambda bench: ({"a": 1.0, "self_first": 1.0}, {"run": "x"})  # type: ignore[attr-defined]
    made.two = lambda bench: ({"b": 2.0, "self_first": 0.5}, {"run": "y"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_parts", made)
    monkeypatch.setattr(visual, "PARTS", {"one": ("made_up_parts", "one"), "two": ("made_up_parts", "two")})
    monkeypatch.setenv("CONTINUUM_DATA", str(tmp_path))
    monkeypatch.setenv("CONTINUUM_HOME", str(tmp_path))
    outcome = visual.run(False, lambda line: None)
    assert outcome["measured"] == {"a": 1.0, "b": 2.0, "self_first": 0.5}
    assert outcome["setup"] == {"one_run": "x", "two_run": "y"}
    assert visual.run(False, lambda line: None, ["--part", "one"])["measured"] == {
        "a": 1.0,
        "self_first": 1.0,
    }


def test_no_data_and_a_bundle_without_a_name_are_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONTINUUM_DATA", raising=False)
    with pytest.raises(ValueError, match="CONTINUUM_DATA is not set"):
        visual.run(False, lambda line: None)
    monkeypatch.setenv("CONTINUUM_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="--bundle is 'x'; expected NAME=FOLDER"):
        visual.run(False, lambda line: None, ["--bundle", "x"])


def test_a_bundle_is_taken_for_its_own_config_only(tmp_path: pathlib.Path) -> None:
    import msgspec

    bench, folder = _bench(tmp_path), tmp_path / "bundle"
    folder.mkdir()
    config = grocery_config(bench, folder)
    assert finished(folder, config) is None
    moved = msgspec.structs.replace(config, out="elsewhere", threads=1)
    write_bundle(
        folder,
        Bundle(
            family="embedder",
            run_id="r",
            model_uri="m",
            metrics={},
            config=msgspec.to_builtins(moved),
            files={},
        ),
    )
    assert finished(folder, config) is not None
    other = msgspec.structs.replace(config, seed=config.seed + 1)
    assert finished(folder, other) is None
    assert finished(folder, coarse_config(bench, folder)) is None
    # Where the weights that training starts from lie does not matter, which weights they are does.
    one, moved, another = (
        msgspec.to_builtins(fashion_config(bench, folder, tmp_path / name / start))
        for name, start in (("a", "coarse"), ("b", "coarse"), ("b", "fine"))
    )
    for told in (one, moved, another):
        forget_start(told)
    assert one == moved != another
    # One that is pointed to is measured as it is.
    assert trained(_bench(tmp_path, bundles={"fashion": folder}), "fashion").run_id == "r"


def test_configs_fit_together(tmp_path: pathlib.Path) -> None:
    for quick in (False, True):
        bench = _bench(tmp_path, quick=quick)
        for config in (
            grocery_config(bench, tmp_path),
            coarse_config(bench, tmp_path),
            fashion_config(bench, tmp_path, tmp_path),
        ):
            check_embedder(config)
    assert text_config(_bench(tmp_path), tmp_path).embedder == str(_bench(tmp_path).folder("fashion"))
