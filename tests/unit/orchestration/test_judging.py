"""Maps between releases' vocabularies, and the order of events around a verdict."""

from __future__ import annotations

import numpy as np

from orchestration.judging import _remap


def test_encoder_ids_follow_their_products() -> None:
    known = {"product_id": np.array(["a", "c", "d"]), "encoder_id": np.array([3, 1, 2], np.int32)}
    found = _remap(known, np.array(["a", "b", "c", "d", "e"]))
    assert found.tolist() == [3, 0, 1, 2, 0]
