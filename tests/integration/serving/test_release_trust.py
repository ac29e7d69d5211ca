"""No release is served that is not exactly what was signed, and a bad one never replaces a good one."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import sqlite3
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from contracts.release import read_manifest
from serving.profiles.history import to_days
from serving.releases import ReleaseError, open_release
from serving.releases.holder import Holder
from serving.releases.pull import SERVED_FILE, read_served
from serving.releases.registry import (
    DatabaseRegistry,
    FolderRegistry,
    HttpRegistry,
    Pointer,
    RegistryError,
    open_registry,
)
from serving.releases.verify import read_verify_key
from tests.integration.serving.conftest import Shop, recommend, serving, wait_for
from tests.integration.serving.synthetic import (
    FEATURES,
    NOW,
    Keys,
    history_of,
    manifest_of,
    ranker_graph,
    sign,
)

Damage = Callable[[pathlib.Path], None]


def flip(path: str, place: float) -> Damage:
    def damage(folder: pathlib.Path) -> None:
        content = bytearray((folder / path).read_bytes())
        content[int(place * (len(content) - 1))] ^= 0x40
        (folder / path).write_bytes(bytes(content))

    return damage


def remove(path: str) -> Damage:
    return lambda folder: (folder / path).unlink()


def add(path: str) -> Damage:
    def damage(folder: pathlib.Path) -> None:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(b"stray")

    return damage


def truncate(path: str) -> Damage:
    return lambda folder: os.truncate(folder / path, 100)


def link(path: str) -> Damage:
    def damage(folder: pathlib.Path) -> None:
        target = folder.parent / "elsewhere"
        target.write_bytes((folder / path).read_bytes())
        (folder / path).unlink()
        (folder / path).symlink_to(target)

    return damage


def link_folder(folder: pathlib.Path) -> None:
    shutil.move(folder / "encoder", folder.parent / "moved")
    (folder / "encoder").symlink_to(folder.parent / "moved")


def pipe(folder: pathlib.Path) -> None:
    (folder / "ranker" / "ranker.onnx").unlink()
    os.mkfifo(folder / "ranker" / "ranker.onnx")


DAMAGES: dict[str, Damage] = {
    **{f"{path} flipped at {place}": flip(path, place)
       for path in ("manifest.json", "encoder/encoder.onnx", "ranker/ranker.onnx", "items/items.npz",
                    "items/exposures.npz", "golden/golden.json") for place in (0.0, 0.5, 1.0)},
    "signature flipped": flip("manifest.sig", 0.3),
    "unsigned": remove("manifest.sig"),
    "no manifest": remove("manifest.json"),
    "a file is missing": remove("ranker/ranker.onnx"),
    "a file is truncated": truncate("encoder/encoder.onnx"),
    "an unlisted file": add("encoder/extra.bin"),
    "an unlisted hidden file": add(".hidden"),
    "a linked file": link("ranker/ranker.onnx"),
    "a linked folder": link_folder,
    "a pipe": pipe,
}  # fmt: skip


@pytest.fixture
def release(tmp_path: pathlib.Path, made: tuple[pathlib.Path, Keys]) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(made[0] / "r1", tmp_path / "r1"))


def test_a_good_release_opens_and_answers(release: pathlib.Path, made: tuple[pathlib.Path, Keys]) -> None:
    opened = open_release(release, made[1].verify)
    assert opened.name == "r1"
    assert opened.engine.providers == {"encoder": "CPUExecutionProvider", "ranker": "CPUExecutionProvider"}
    assert len(opened.engine.rank(history_of(5), to_days(NOW), 0, 10).items) == 10


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_whatever_is_changed_is_refused(
    release: pathlib.Path, made: tuple[pathlib.Path, Keys], damage: Damage
) -> None:
    damage(release)
    with pytest.raises(ReleaseError):
        open_release(release, made[1].verify)


def test_another_key_is_refused(
    release: pathlib.Path, made: tuple[pathlib.Path, Keys], tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ReleaseError, match="signature"):
        open_release(release, Keys(tmp_path / "other").verify)
    with pytest.raises(ReleaseError, match="cannot be read"):
        open_release(release, tmp_path / "none.pem")
    (tmp_path / "bad.pem").write_text("no key")
    with pytest.raises(ReleaseError, match="not a public key"):
        open_release(release, tmp_path / "bad.pem")


def resign(release: pathlib.Path, keys: Keys, **changes: Any) -> None:
    sign(release, keys, manifest_of(release, "r1", **changes))


def test_files_of_another_release_do_not_fit(made: tuple[pathlib.Path, Keys], release: pathlib.Path) -> None:
    shutil.copy(made[0] / "r2" / "ranker" / "ranker.onnx", release / "ranker" / "ranker.onnx")
    with pytest.raises(ReleaseError, match="hash"):
        open_release(release, made[1].verify)


def test_paths_cannot_leave_the_release(made: tuple[pathlib.Path, Keys], release: pathlib.Path) -> None:
    raw = (release / "manifest.json").read_bytes()
    for path in (b"../ranker.onnx", b"/etc/passwd", b"a/../../b", b"a//b", b".hidden", b"a\\\\b"):
        changed = raw.replace(b"ranker/ranker.onnx", path)
        (release / "manifest.json").write_bytes(changed)
        import base64

        (release / "manifest.sig").write_bytes(base64.b64encode(made[1].private.sign(changed)))
        with pytest.raises(ReleaseError):
            open_release(release, made[1].verify)


def test_a_signed_release_that_answers_differently_is_refused(
    made: tuple[pathlib.Path, Keys], release: pathlib.Path
) -> None:
    onnx.save(ranker_graph(np.random.default_rng(99), len(FEATURES)), release / "ranker" / "ranker.onnx")
    resign(release, made[1])
    with pytest.raises(ReleaseError, match="golden request"):
        open_release(release, made[1].verify)


def test_a_release_without_golden_requests_is_refused(
    made: tuple[pathlib.Path, Keys], release: pathlib.Path
) -> None:
    (release / "golden" / "golden.json").unlink()
    resign(release, made[1], golden=False)
    with pytest.raises(ReleaseError, match="golden"):
        open_release(release, made[1].verify)


def bad_ranker(kind: str) -> bytes:
    model = ranker_graph(np.random.default_rng(1), len(FEATURES))
    if kind == "foreign operator":
        model.graph.node[0].domain = "evil.ops"
    elif kind == "foreign opset":
        model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    elif kind == "external weights":
        model.graph.initializer[0].data_location = TensorProto.EXTERNAL
        model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    elif kind == "other input":
        model = ranker_graph(np.random.default_rng(1), len(FEATURES))
        model.graph.input[0].name = "other"
    elif kind == "wrong width":
        model = ranker_graph(np.random.default_rng(1), len(FEATURES) + 1)
    elif kind == "not a number":
        model = ranker_graph(np.random.default_rng(1), len(FEATURES), last=float("nan"))
    elif kind == "wrong type":
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    elif kind == "not a model":
        return b"\x00\x01 not a model"
    elif kind == "empty":
        return b""
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "kind",
    ["foreign operator", "foreign opset", "external weights", "other input", "wrong width", "not a number",
     "wrong type", "not a model", "empty"],
)  # fmt: skip
def test_a_signed_but_broken_graph_is_refused(
    made: tuple[pathlib.Path, Keys], release: pathlib.Path, kind: str
) -> None:
    (release / "ranker" / "ranker.onnx").write_bytes(bad_ranker(kind))
    resign(release, made[1])
    with pytest.raises(ReleaseError):
        open_release(release, made[1].verify)


@pytest.mark.parametrize(
    "change", ["pickled", "short", "missing", "outside", "unknown feature", "no settings"]
)
def test_signed_but_broken_tables_are_refused(
    made: tuple[pathlib.Path, Keys], release: pathlib.Path, change: str
) -> None:
    with np.load(release / "items" / "items.npz") as archive:
        arrays: dict[str, Any] = {key: archive[key] for key in archive.files}
    changes: dict[str, Any] = {}
    if change == "pickled":
        arrays["name"] = arrays["name"].astype(object)
    elif change == "short":
        arrays["category_id"] = arrays["category_id"][:-1]
    elif change == "missing":
        del arrays["neighbours"]
    elif change == "outside":
        arrays["neighbours"][0, 0] = 10_000
    elif change == "unknown feature":
        changes["features"] = ("astrology", *FEATURES[1:])
    elif change == "no settings":
        manifest = manifest_of(release, "r1")
        parts = tuple(
            msgspec.structs.replace(part, settings={}) if part.name == "encoder" else part
            for part in manifest.components
        )
        changes["components"] = parts
    np.savez(release / "items" / "items.npz", **arrays)
    if change != "no settings":
        resign(release, made[1], **changes)
    else:
        sign(release, made[1], msgspec.structs.replace(manifest_of(release, "r1"), **changes))
    with pytest.raises(ReleaseError):
        open_release(release, made[1].verify)


def test_an_encoder_that_ignores_the_deny_list_cannot_sell_what_is_not_sold(
    made: tuple[pathlib.Path, Keys], release: pathlib.Path
) -> None:
    opened = open_release(release, made[1].verify)
    engine = opened.engine
    engine._deny = np.zeros_like(engine._deny)
    shown = engine.rank(history_of(9), to_days(NOW), 0, 100).items
    assert engine.items.sellable[shown].all()


def test_a_refused_release_leaves_the_old_one_serving(shop: Shop) -> None:
    flip("encoder/encoder.onnx", 0.5)(shop.registry / "r2")
    with serving(shop) as (client, server):
        shop.champion("r2")
        wait_for(lambda: len(server.holder.refused) > 0)
        assert recommend(client, customer_id="1001").json()["release"] == "r1"
        status = client.get("/v1/release").json()
        assert (status["release"], status["swaps"]) == ("r1", 1)
        assert "hash" in status["refused"][0]["reason"]
        assert client.get("/health/ready").json()["notes"] == ["release_refused"]
        assert "continuum_release_refusals_total 1.0" in client.get("/metrics").text
        assert "refused" in client.get("/").text
        shop.champion("r1")
        wait_for(lambda: server.holder.checked_at > server.holder.refused[0].at)
        assert len(server.holder.refused) == 1


def test_a_swap_keeps_the_previous_for_instant_rollback(shop: Shop) -> None:
    with serving(shop) as (client, server):
        first = server.holder.current
        shop.champion("r2")
        wait_for(lambda: server.holder.swaps == 2)
        assert recommend(client, customer_id="1001").json()["release"] == "r2"
        assert client.get("/v1/release").json()["previous"]["release"] == "r1"
        shutil.rmtree(shop.registry / "r1" / "encoder")
        shop.champion("r1")
        wait_for(lambda: server.holder.swaps == 3)
        assert server.holder.current is first
        assert recommend(client, customer_id="1001").json()["release"] == "r1"


def test_while_nothing_is_approved_events_are_taken_in_and_readiness_says_no(shop: Shop) -> None:
    (shop.registry / "champion").unlink()
    with serving(shop, loaded=False) as (client, server):
        response = recommend(client, customer_id="1001")
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert response.json()["type"].endswith("no-release")
        assert client.get("/health/ready").status_code == client.get("/v1/release").status_code == 503
        assert client.get("/health/live").status_code == 200
        from tests.integration.serving.synthetic import event

        assert client.post("/v1/events", json=event("early")).status_code == 202
        assert "No release yet" in client.get("/").text
        shop.champion("r1")
        wait_for(lambda: server.holder.current is not None)
        assert client.get("/health/ready").json()["ready"] is True


class Down:
    """A registry that never answers."""

    def resolve(self, alias: str) -> Pointer | None:
        raise RegistryError("the registry cannot be reached (ConnectError)")

    def fetch(self, pointer: Pointer, path: str, limit: int) -> bytes:
        raise RegistryError("the registry cannot be reached (ConnectError)")


def test_a_cold_start_without_the_registry_serves_the_proven_cache(shop: Shop) -> None:
    with serving(shop):
        wait_for(lambda: read_served(shop.home / "releases") is not None)
    with serving(shop, registry=Down()) as (client, server):
        wait_for(lambda: server.holder.registry_up is False)
        assert recommend(client, customer_id="1001").json()["release"] == "r1"
        assert client.get("/v1/release").json()["source"] == "cache"
        assert client.get("/health/ready").json()["notes"] == ["registry_down"]
    flip("items/items.npz", 0.5)(shop.home / "releases" / "r1")
    with serving(shop, loaded=False, registry=Down()) as (client, server):
        wait_for(lambda: server.holder.registry_up is False)
        assert client.get("/health/ready").status_code == 503
        assert "in the cache" in server.holder.refused[0].reason


def test_a_damaged_cache_heals_from_the_registry(shop: Shop) -> None:
    with serving(shop):
        pass
    flip("items/items.npz", 0.5)(shop.home / "releases" / "r1")
    with serving(shop) as (client, _):
        assert recommend(client, customer_id="1001").json()["release"] == "r1"
    (shop.home / "releases" / SERVED_FILE).write_text("{nonsense")
    with serving(shop) as (client, _):
        assert recommend(client, customer_id="1001").json()["release"] == "r1"


def test_a_registry_that_goes_down_changes_nothing(shop: Shop) -> None:
    with serving(shop) as (client, server):
        (shop.registry / "champion").write_text("../../etc")
        wait_for(lambda: server.holder.registry_up is False)
        assert recommend(client, customer_id="1001").json()["release"] == "r1"
        assert client.get("/v1/release").json()["registry"] == "down"
        shop.champion("r2")
        wait_for(lambda: server.holder.swaps == 2)


def test_a_cache_that_cannot_be_written_keeps_the_old_release(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(shop) as (client, server):

        def full(path: pathlib.Path, content: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("serving.releases.pull._write", full)
        shop.champion("r2")
        wait_for(lambda: len(server.holder.refused) > 0)
        assert "No space left" in server.holder.refused[0].reason
        assert recommend(client, customer_id="1001").json()["release"] == "r1"
        monkeypatch.undo()
        wait_for(lambda: server.holder.swaps == 2)
    assert not list((shop.home / "releases").glob(".tmp-*"))


def test_providers_that_are_not_there_fall_back_and_say_so(shop: Shop) -> None:
    with serving(shop, providers=("NoSuchProvider", "CPUExecutionProvider")) as (client, _):
        assert client.get("/v1/release").json()["providers"]["encoder"] == "CPUExecutionProvider"


class FakeMlflow(BaseHTTPRequestHandler):
    """The two addresses of an MLflow server that are used, answering as MLflow 3.17 does."""

    folder = pathlib.Path()
    mode = ""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if self.mode == "broken":
            self._send(500, b"{}")
        elif parts.path.endswith("/registered-models/alias"):
            assert query["name"] == "synthetic-release"
            if query["alias"] != "champion":
                self._send(400, b'{"error_code": "INVALID_PARAMETER_VALUE"}')
            elif self.mode == "nonsense":
                self._send(200, b"<html>")
            else:
                self._send(200, b'{"model_version": {"version": "3", "source": "mlflow-artifacts:/x"}}')
        elif parts.path == "/model-versions/get-artifact":
            file = self.folder / query["path"]
            self._send(200, file.read_bytes()) if file.is_file() else self._send(404, b"{}")

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


def test_releases_come_from_an_mlflow_server(shop: Shop) -> None:
    handler = type("Handler", (FakeMlflow,), {"folder": shop.registry / "r1"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as fake:
        threading.Thread(target=fake.serve_forever, daemon=True).start()
        registry = HttpRegistry(f"http://127.0.0.1:{fake.server_port}/", "synthetic-release", timeout=5)
        assert registry.resolve("challenger") is None
        with pytest.raises(ReleaseError, match="missing"):
            registry.fetch(Pointer("3"), "no/such.file", 10)
        with pytest.raises(ReleaseError, match="larger"):
            registry.fetch(Pointer("3"), "encoder/encoder.onnx", 10)
        with serving(shop, registry=registry) as (client, server):
            assert client.get("/v1/release").json()["version"] == "3"
            for mode in ("broken", "nonsense"):
                handler.mode = mode  # type: ignore[attr-defined]
                wait_for(lambda: server.holder.registry_up is False)
                handler.mode = ""  # type: ignore[attr-defined]
                wait_for(lambda: server.holder.registry_up is True)
        fake.shutdown()
    with pytest.raises(RegistryError, match="cannot be reached"):
        registry.resolve("champion")


def test_releases_come_from_mlflows_own_database(shop: Shop, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ml flow" / "mlflow.db"
    registry = open_registry(f"sqlite:///{path}", "synthetic-release")
    assert isinstance(registry, DatabaseRegistry)
    assert registry.resolve("champion") is None
    path.parent.mkdir()
    con = sqlite3.connect(path)
    assert registry.resolve("champion") is None
    con.executescript(
        "create table registered_model_aliases (workspace, name, alias, version);"
        "create table model_versions (workspace, name, version, storage_location);"
    )
    assert registry.resolve("champion") is None
    con.execute("insert into registered_model_aliases values ('default', 'synthetic-release', 'champion', 4)")
    location = (shop.registry / "r2").as_uri()
    con.execute("insert into model_versions values ('default', 'synthetic-release', 4, ?)", (location,))
    con.commit()
    assert registry.resolve("champion") == Pointer("4", shop.registry / "r2")
    with serving(shop, registry=registry) as (client, _):
        assert client.get("/v1/release").json()["release"] == "r2"
    con.execute("update model_versions set storage_location = 's3://bucket/x'")
    con.commit()
    with pytest.raises(RegistryError, match="'s3' store"):
        registry.resolve("champion")
    con.close()


def test_a_release_folder_is_a_registry_of_its_own(shop: Shop) -> None:
    registry = FolderRegistry(shop.registry / "r2")
    with serving(shop, registry=registry) as (client, _):
        assert client.get("/v1/release").json()["release"] == "r2"
    with pytest.raises(RegistryError, match="scheme"):
        open_registry("ftp://example", "x")


def test_a_version_that_was_refused_is_not_loaded_again_and_again(shop: Shop) -> None:
    flip("ranker/ranker.onnx", 0.5)(shop.registry / "r1")
    holder = Holder(
        FolderRegistry(shop.registry), lambda: read_verify_key(shop.keys.verify), shop.home / "releases"
    )
    assert [holder.poll() for _ in range(5)] == [False] * 5
    assert len(holder.refused) == 1


def test_a_key_may_come_after_the_server(shop: Shop) -> None:
    key = shop.keys.verify.read_bytes()
    later = shop.home / "later.pem"
    with serving(shop, loaded=False, verify_key=later) as (client, server):
        wait_for(lambda: len(server.holder.refused) > 0)
        assert "no release key" in client.get("/v1/release").json()["detail"]
        later.write_bytes(key)
        wait_for(lambda: server.holder.current is not None)
        assert recommend(client, customer_id="1001").json()["release"] == "r1"


def test_manifests_round_trip(release: pathlib.Path) -> None:
    manifest = read_manifest((release / "manifest.json").read_bytes())
    assert manifest.component("encoder").settings["vocabulary"] > 0
    assert dataclasses.is_dataclass(Pointer) is False
