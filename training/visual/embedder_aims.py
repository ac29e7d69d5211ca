"""All that an embedder learns towards, as one loss: proxies of classes, attribute heads, words.

Belongs here: from labels to classes, the sum of the losses. Does not belong here: the losses (`losses.py`), the
loop (`embedder_fit.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from training.config import ConfigError
from training.visual.config import EmbedderParams, Target
from training.visual.embedder_data import Ints, Samples
from training.visual.embedder_model import Embedder, Parts
from training.visual.losses import LOSSES, WordsContrast
from training.visual.sentences import sentence_vectors


class Aims:
    """All that an embedder learns towards, as one loss.

    Args:
        samples: All pictures.
        targets: What vectors are pulled together by.
        attributes: Labels with a head.
        labels: int64[N] class by target, -1 where there is none.
        losses: By target.
        params: Weights of the parts.
        words: Label with a text that vectors are pulled to, or empty.
    """

    def __init__(
        self,
        samples: Samples,
        targets: Sequence[Target],
        attributes: Sequence[str],
        labels: Sequence[Tensor],
        losses: nn.ModuleList,
        params: EmbedderParams,
        words: str,
    ) -> None:
        self.targets, self.labels, self.losses, self.params = targets, labels, losses, params
        self.heads = {
            name: torch.from_numpy(
                np.where(samples.labels[name] < samples.learned[name], samples.labels[name], -1)
            )
            for name in attributes
        }
        self.words: nn.Module = nn.Module()
        self.sentence: Tensor | None = None
        if words:
            self.words = WordsContrast(sentence_vectors(samples.values[words]), params.dim, params.scale)
            self.sentence = torch.from_numpy(samples.labels[words])

    def loss(self, model: Embedder, parts: Parts, rows: Ints) -> Tensor:
        """Loss of what the network made of some rows."""
        whole = model.join(parts)
        vectors = {"shape": parts.shape, "colour": parts.colour, "all": whole}
        at = torch.from_numpy(rows)
        loss = whole.new_zeros(())
        for code, learner, target in zip(self.labels, self.losses, self.targets, strict=True):
            loss = loss + target.weight * learner(vectors[target.part], code[at])
        for name, code in self.heads.items():
            if (code[at] >= 0).any():
                loss = loss + self.params.attribute_weight * nn.functional.cross_entropy(
                    parts.attributes[name],
                    code[at],
                    ignore_index=-1,
                    label_smoothing=self.params.attribute_smoothing,
                )
        if self.sentence is not None:
            loss = loss + self.params.words_weight * self.words(whole, self.sentence[at])
        return loss


def make_targets(
    samples: Samples, targets: Sequence[Target], params: EmbedderParams, rows: Ints
) -> tuple[list[Tensor], nn.ModuleList]:
    """Class of each row (-1: none) and the loss, by target."""
    labels, losses = [], nn.ModuleList()
    for at, target in enumerate(targets):
        codes, _ = samples.joint(target.labels)
        counts = np.bincount(codes[np.unique(rows)] + 1, minlength=codes.max() + 2)[1:]
        kept = np.flatnonzero(counts >= max(target.smallest, 1))
        if len(kept) < 2:
            raise ConfigError(f"`$.targets[{at}]` has {len(kept)} classes to learn from; expected at least 2")
        place = np.full(len(counts) + 1, -1, np.int64)
        place[kept] = np.arange(len(kept))
        labels.append(torch.from_numpy(place[codes]))
        width = {"shape": params.shape_dim, "colour": params.colour_dim, "all": params.dim}
        losses.append(
            LOSSES[params.loss](len(kept), width[target.part], params.scale, params.margin, params.smoothing)
        )
    return labels, losses
