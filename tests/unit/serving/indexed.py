"""An index of the synthetic shop, as tests of search and of what is made of it ask it."""

from __future__ import annotations

import numpy as np

from serving.engine.items import ItemTable
from serving.vision.index import Index
from tests.integration.serving import seeing
from tests.integration.serving.synthetic import item_arrays

ITEMS = ItemTable(item_arrays())
GRAPH = seeing.embedder_graph().SerializeToString()
ARRAYS = seeing.index_arrays(GRAPH, ITEMS.product_ids)
EMBEDDER = str(ARRAYS["embedder_sha256"])
INDEX = Index(ARRAYS, EMBEDDER, seeing.DIM, ITEMS)
EVERYTHING = np.ones(ITEMS.size, np.bool_)
