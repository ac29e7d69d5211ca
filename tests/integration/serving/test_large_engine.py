"""The engine answers the same whether its encoder scores the whole catalogue or searches it."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from contracts.release import read_manifest
from serving.engine.engine import Engine, Query
from serving.engine.items import Exposures, Filters, ItemTable, StoreProducts, read_arrays
from serving.engine.large import LargeEncoder, open_encoder
from serving.engine.sessions import Session
from serving.profiles.history import to_days
from serving.releases.release import (
    ENCODER_FILE,
    EXPOSURES_FILE,
    ITEMS_FILE,
    RANKER_FILE,
    STORE_PRODUCTS_FILE,
)
from serving.releases.verify import read_files
from tests.integration.serving.conftest import Keys
from tests.integration.serving.synthetic import NOW, VOCABULARY, history_of


def naming_its_parts(content: bytes) -> bytes:
    """The synthetic encoder with the names that a search needs."""
    model = onnx.load_model_from_string(content)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(VOCABULARY + 1, np.float32), "bias"))
    model.graph.node.append(helper.make_node("Identity", ["person"], ["state"]))
    model.graph.output.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, ["B", 16]))
    return bytes(model.SerializeToString())


@pytest.fixture
def engines(made: tuple[pathlib.Path, Keys]) -> tuple[Engine, Engine]:
    folder = made[0] / "r1"
    manifest = read_manifest((folder / "manifest.json").read_bytes())
    files = read_files(folder, manifest)
    items = ItemTable(read_arrays(ITEMS_FILE, files[ITEMS_FILE]))
    size = (items.size, len(items.stores))
    exposures = Exposures(read_arrays(EXPOSURES_FILE, files[EXPOSURES_FILE]), *size)
    sales = StoreProducts(read_arrays(STORE_PRODUCTS_FILE, files[STORE_PRODUCTS_FILE]), *size)
    cut = open_encoder(ENCODER_FILE, naming_its_parts(files[ENCODER_FILE]), large=VOCABULARY)
    assert isinstance(cut, LargeEncoder)
    whole = Session(ENCODER_FILE, files[ENCODER_FILE])
    return tuple(Engine(manifest, one, files[RANKER_FILE], items, exposures, sales) for one in (whole, cut))  # type: ignore[return-value]


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("deny", [(), tuple(range(0, 400, 3)), tuple(range(396))])
@pytest.mark.parametrize("filters", [Filters(), Filters(department=("PRODUCE",))])
def test_the_same_answers(
    engines: tuple[Engine, Engine], batch: int, deny: tuple[int, ...], filters: Filters
) -> None:
    queries = [
        Query(history_of(row + 1), to_days(NOW), store=row % 3, n=20, filters=filters, deny=deny)
        for row in range(batch)
    ]
    whole, cut = (engine.rank_many(queries) for engine in engines)
    for expected, got in zip(whole, cut, strict=True):
        assert got.items.tolist() == expected.items.tolist()
        np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-5)
        assert (got.sources, got.reasons, got.candidates) == (
            expected.sources, expected.reasons, expected.candidates
        )  # fmt: skip
        assert got.graph_ns[0] > 0
