"""The text tower: a sentence becomes a unit vector in the embedder's space, where words find pictures.

Sentence vectors are the packaged MiniLM's, which stays as it is; what is learned is the step from there to the
pictures, so that a small shop's few names cannot spoil what the encoder knows of other words.

Belongs here: network, learning, export. Does not belong here: MiniLM itself (`sentences.py`), which names go with
which pictures (`text_data.py`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.visual.config import TextParams
from training.visual.embedder_export import ParityError, export_onnx, open_session
from training.visual.losses import contrast
from training.visual.sentences import MiniLM, Words

SHAPES = ((1, 1), (2, 5), (7, 12), (3, 48))
TOLERANCE = 1e-3

Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Progress = Callable[[str], None]


class Step(nn.Module):
    """From sentence vectors to the pictures' space: a linear map and a gated correction to it.

    Args:
        width: Of a sentence vector.
        dim: Of the embedder's space.
        hidden: Of the correction.
        dropout: While learning.
    """

    def __init__(self, width: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.line = nn.Linear(width, dim)
        self.bend = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )

    def forward(self, sentences: Tensor) -> Tensor:
        """float[B, width] to unit vectors float[B, dim]."""
        x = self.norm(sentences)
        return nn.functional.normalize(self.line(x) + self.bend(x), dim=-1)


class TextTower(nn.Module):
    """MiniLM and the step."""

    def __init__(self, encoder: MiniLM, step: Step) -> None:
        super().__init__()
        self.encoder, self.step = encoder, step

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64[B, L] twice to unit vectors float[B, dim]."""
        return self.step(self.encoder(input_ids, attention_mask))


def learn_step(
    sentences: Tensor,
    pictures: Tensor,
    alike: Ints,
    params: TextParams,
    seed: int,
    score: Callable[[Step], float] | None = None,
    progress: Progress = lambda line: None,
) -> tuple[Step, list[float], list[float]]:
    """Learn the step by contrast.

    Args:
        sentences: float[N, width], one per picture or phrase.
        pictures: Unit vectors float[N, dim] of their pictures.
        alike: int64[N, A]: pairs that share a number (not -1) in a column are weakly right for each other.
        params: The tower's own.
        seed: Of all randomness.
        score: Judges a step; the best of all epochs is kept. Without it, the last is.
        progress: Told of some epochs.

    Returns:
        The step in evaluation mode, its mean loss and its score by epoch.
    """
    torch.manual_seed(seed)
    step = Step(sentences.shape[1], pictures.shape[1], params.hidden, params.dropout)
    sharpness = nn.Parameter(torch.tensor(params.scale).log())
    optimiser = torch.optim.AdamW(
        [*step.parameters(), sharpness], lr=params.learning_rate, weight_decay=params.weight_decay
    )
    batch = min(params.batch, len(sentences))
    total = max(1, len(sentences) // batch * params.epochs)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, params.learning_rate, total, pct_start=0.1)
    codes, generator = torch.from_numpy(alike), torch.Generator().manual_seed(seed)
    losses, scores = [], []
    best, kept = -np.inf, {name: value.clone() for name, value in step.state_dict().items()}
    for epoch in range(params.epochs):
        step.train()
        order, mean = torch.randperm(len(sentences), generator=generator), []
        for first in range(0, len(order) - batch + 1, batch):
            rows = order[first : first + batch]
            noisy = pictures[rows] + params.noise * torch.randn(pictures[rows].shape, generator=generator)
            same = torch.eye(len(rows))
            for column in codes[rows].T:
                shared = (column[:, None] == column[None, :]) & (column[:, None] >= 0)
                same = torch.maximum(same, params.alike_weight * shared)
            loss = contrast(
                step(sentences[rows]),
                nn.functional.normalize(noisy, dim=-1),
                sharpness.exp().clamp(max=100.0),
                same,
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            mean.append(loss.item())
        losses.append(float(np.mean(mean)))
        step.eval()
        if score is not None:
            scores.append(score(step))
            if scores[-1] > best:
                best, kept = scores[-1], {name: value.clone() for name, value in step.state_dict().items()}
        if (epoch + 1) % 10 == 0:
            told = f", validation {scores[-1]:.4f}" if scores else ""
            progress(f"text, epoch {epoch + 1}: loss {losses[-1]:.4f}{told}")
    if score is not None:
        step.load_state_dict(kept)
    return step.eval(), losses, scores


def export_text(tower: TextTower, path: pathlib.Path) -> None:
    """Write the tower as ONNX with any batch and length."""
    tokens = torch.ones(2, 9, dtype=torch.long)
    free = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=512)}
    export_onnx(
        tower.eval(), (tokens, tokens.clone()), path, ["input_ids", "attention_mask"], ["embedding"], free
    )


def check_text_parity(
    tower: TextTower, path: pathlib.Path, words: Words, sentences: list[str], vocabulary: int
) -> float:
    """Compare graph and network on random and on real sentences.

    Returns:
        Largest difference of any number.

    Raises:
        ParityError: A number differs by more than TOLERANCE.
    """
    session, rng = open_session(path), np.random.default_rng(0)
    cases = [words(sentences)]
    for batch, length in SHAPES:
        mask = (np.arange(length) < rng.integers(1, length + 1, batch)[:, None]).astype(np.int64)
        cases.append((rng.integers(0, vocabulary, (batch, length)) * mask, mask))
    worst = 0.0
    for tokens, mask in cases:
        with torch.inference_mode():
            want = tower(torch.from_numpy(tokens), torch.from_numpy(mask)).numpy()
        (have,) = session.run(["embedding"], {"input_ids": tokens, "attention_mask": mask})
        gap = float(np.abs(want - have).max())
        if not np.isfinite(have).all() or gap > TOLERANCE:
            raise ParityError(
                f"text of batch x length {tokens.shape} differs by {gap:.2e}; expected at most {TOLERANCE:.0e}"
            )
        worst = max(worst, gap)
    return worst


def embed_text(path: pathlib.Path, words: Words, sentences: list[str], batch: int = 256) -> Vectors:
    """Vectors of sentences by an exported graph: float32[N, dim]."""
    session = open_session(path)
    order = sorted(range(len(sentences)), key=lambda at: len(sentences[at]))
    found: list[Vectors] = []
    for first in range(0, len(order), batch):
        tokens, mask = words([sentences[at] for at in order[first : first + batch]])
        found.append(session.run(["embedding"], {"input_ids": tokens, "attention_mask": mask})[0])
    out = np.concatenate(found)
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return out[back]
