"""The bench of public sets on made-up files: it learns what is there, goes on where it stopped, and says what is wrong."""

from __future__ import annotations

import json
import pathlib

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from orchestration.cli import main
from tests.benchmarks import sequences as bench
from tests.benchmarks import sequences_models as library
from tests.benchmarks.meaning import meaning
from tests.benchmarks.sequences_cache import Cache, Run, key_of
from training.config import EncoderParams

SMALL = msgspec.structs.replace(library.HISTORIES, dim=16, negatives=16, batch=32, epochs=6, dropout=0.1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("CONTINUUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(library, "HISTORIES", SMALL)
    monkeypatch.setattr(library, "SESSIONS", msgspec.structs.replace(SMALL, length=8))


def circles(path: pathlib.Path, users: bool, lines: int = 160) -> str:
    """Histories that go around a circle of 40 items, with a third of the steps skipped; no item twice."""
    rng = np.random.default_rng(0)
    rows = []
    for row in range(lines):
        steps = np.cumsum(rng.choice([1, 1, 2], rng.integers(4, 9)))
        items = " ".join(str(100 + (7 * row + step) % 40) for step in steps)
        rows.append(f"{row + 1} {items}" if users else items)
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def call(*words: str) -> dict[str, object]:
    return bench.run(False, lambda line: None, words)


def test_users_of_an_unknown_file(tmp_path: pathlib.Path) -> None:
    path = circles(tmp_path / "toy.txt", users=True)
    words = ("--data", path, "--only", "encoder,recent_popularity,item_knn", "--seeds", "2")
    first = call(*words)
    measured = first["measured"]
    assert isinstance(measured, dict)
    assert first["bench"] == "sequences-toy"
    assert measured["ndcg_at_10"] > 0.45 > 2 * measured["recent_popularity_ndcg_at_10"]
    assert measured["hr_at_10_ci_low"] <= measured["hr_at_10"] <= measured["hr_at_10_ci_high"]
    assert measured["ndcg_at_10_std"] > 0
    assert measured["ndcg_best_baseline"] == "item_knn"
    again = call(*words)
    assert again["setup"]["runs_from_earlier_calls"] == 4  # type: ignore[index]
    assert again["measured"] == measured


def test_sessions_of_an_unknown_file_through_the_command(tmp_path: pathlib.Path) -> None:
    path = circles(tmp_path / "clicks.txt", users=False)
    done = CliRunner().invoke(
        main, ["bench", "sequences", "--data", path, "--only", "encoder,vsknn", "--seeds", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["measured"]["p_at_20"] > 0.8
    assert found["setup"]["requests"] > 16
    assert found["setup"]["protocol"].startswith("next item")


def test_items_left_out_are_found_by_their_attributes(tmp_path: pathlib.Path) -> None:
    """Every item shares one attribute with its neighbours on the circle."""
    path = circles(tmp_path / "toy.txt", users=True, lines=400)
    attributes = tmp_path / "a.json"
    attributes.write_text(json.dumps({str(100 + i): [i // 4] for i in range(40)}))
    measured = call("--data", path, "--attributes", str(attributes), "--only", "cold", "--seeds", "1")[
        "measured"
    ]
    assert isinstance(measured, dict)
    assert measured["cold_items"] == 2
    assert measured["cold_hr_at_10"] > measured["cold_random_hr_at_10"] > 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "no-such-file"), "expected a file or one of amazon-beauty"),
        (("--only", "encoder"), "'x7'; expected a whole number"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: pathlib.Path, words: tuple[str, ...], message: str) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("1 2 3\n2 x7 3\n")
    words = words if "--data" in words else ("--data", str(bad), *words)
    done = CliRunner().invoke(main, ["bench", "sequences", *words])
    assert done.exit_code == 1
    assert message in done.output + done.stderr


def test_benches_without_options_refuse_them() -> None:
    done = CliRunner().invoke(main, ["bench", "identity", "--data", "x"])
    assert done.exit_code == 1
    assert "takes no --data" in done.output + done.stderr


def test_a_run_is_made_again_when_its_config_split_or_code_changes(tmp_path: pathlib.Path) -> None:
    made: list[int] = []

    def make() -> Run:
        made.append(1)
        return Run(np.array([[4, -1]]), {"seconds": 1.5})

    cache = Cache(tmp_path)
    first = cache.run("a", key_of(["split", {"d": 1}], []), make)
    again = cache.run("a", key_of(["split", {"d": 1}], []), make)
    assert again.answers.tolist() == first.answers.tolist()
    assert again.facts == {"seconds": 1.5}
    assert again.cached
    cache.run("a", key_of(["split", {"d": 2}], []), make)
    Cache(tmp_path, fresh=True).run("a", key_of(["split", {"d": 1}], []), make)
    assert len(made) == 3
    code = tmp_path / "code.py"
    code.write_text('"""Doc."""\ndef f():\n    """Says."""\n    return 1  # one\n')
    before = meaning(code)
    code.write_text('"""Other words."""\ndef f():\n    return 1\n')
    assert meaning(code) == before
    code.write_text("def f():\n    return 2\n")
    assert meaning(code) != before


def test_peers_learn_the_circle(tmp_path: pathlib.Path) -> None:
    from tests.benchmarks.sequences_peers import PeerParams, train_peer
    from training.evaluation.protocol import make_task
    from training.evaluation.public_sets import open_set

    task = make_task(open_set(circles(tmp_path / "toy.txt", users=True), None))
    for model, loss in (("sasrec", "softmax"), ("sasrec", "bce"), ("gru4rec", "logq")):
        params = PeerParams(
            model=model, loss=loss, dim=16, epochs=30, batch=32, negatives=16, dropout=0.0, learning_rate=5e-3,
            blocks=1, patience=20,
        )  # type: ignore[arg-type]  # fmt: skip
        _, facts = train_peer(task, params, 0, lambda line: None)
        assert max(facts["curve"]) > 0.4, (model, loss)


def test_every_ablation_is_another_config() -> None:
    class Task:
        name, sessions, tags = "amazon-beauty", False, np.zeros((2, 2))

    base = library.encoder(Task(), library.encoder_params(Task())).config  # type: ignore[arg-type]
    for name, model in library.ablations(Task()).items():  # type: ignore[arg-type]
        assert model.config != base, name
    assert isinstance(library.HISTORIES, EncoderParams)
