"""The ranker's own parameters, strict.

Belongs here: `RankerParams`. Does not belong here: what all families share (`training/config.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from training.config import Positive, Rate, Share

Variant = Literal["moment_unknown", "store_unknown", "full"]
"""What a request brings: nothing but the start of the evaluation window; its time, but not its store
(the customer's usual one stands in); its time and its store."""


class RankerParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests, candidates and trees.

    Attributes:
        cut_days: A customer's first basket after each of these regular moments is a training request.
        keep_strong: Share of the negatives kept that the customer has bought lately.
        keep_weak: Share of the other negatives kept. Less than all saves memory in a large shop and costs quality:
            with 0.3 the grocer's NDCG@10 was 0.245 against 0.249 on three validation weeks.
        strong: Decayed count (45 days) above which an own item counts as bought lately.
        learning_rate: Shrinkage of each tree.
        leaves: Leaves per tree.
        min_leaf: Fewest rows in a leaf.
        l2: Ridge penalty on leaf values.
        truncation: Pairs are weighed by NDCG down to this place (LambdaRank truncation level).
        features_per_tree: Share of columns that a tree may use.
        rows_per_tree: Share of rows that a tree sees.
        bins: Histogram bins per column.
        rounds: At most this many trees.
        patience: Stop after this many trees without a better validation NDCG@10.
        refit: Train again on all requests, with as many trees as validation chose. One more week of requests gave
            0.2477 instead of 0.2462 on the two weeks after it.
        variants: Which request variants to evaluate; ``full`` is how the gate judges.
    """

    cut_days: Positive = 7
    keep_strong: Share = 1.0
    keep_weak: Share = 1.0
    strong: Annotated[float, msgspec.Meta(ge=0)] = 0.2
    learning_rate: Rate = 0.08
    leaves: Annotated[int, msgspec.Meta(ge=2, le=1024)] = 31
    min_leaf: Positive = 500
    l2: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    truncation: Positive = 20
    features_per_tree: Share = 0.5
    rows_per_tree: Share = 0.8
    bins: Annotated[int, msgspec.Meta(ge=2, le=255)] = 63
    rounds: Positive = 150
    patience: Positive = 30
    refit: bool = True
    variants: tuple[Variant, ...] = ("full",)
