"""The training loop of the embedder: steps, learning rates, running average of the weights.

The first parts of the trunk stay as they are and run without gradients, with their batch norms folded, in bfloat16
where the machine multiplies such numbers itself: on a CPU the early, large maps are most of the cost and the least of
what has to be learned.

Belongs here: how weights are found. Does not belong here: pictures (`embedder_data.py`), judging
(`embedder_judge.py`).
"""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.config import ConfigError
from training.visual.augment import views
from training.visual.config import EmbedderParams, Target
from training.visual.embedder_aims import Aims, make_targets
from training.visual.embedder_data import LEARN, Samples
from training.visual.embedder_model import WAY, Embedder
from training.visual.hub import make_hub_trunk
from training.visual.trunk import MEAN, SCALE, VARIANTS, Lite, bundle_weights, folded, make_trunk

LARGEST_GRADIENT = 5.0
WARM_UP = 0.15
LOG_STEPS = 20
SHARES = ("share", "told_share")
"""Weights of parts of the vector in a bundle; see `Embedder`."""

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Fit:
    """A trained embedder.

    Attributes:
        model: With averaged weights, in evaluation mode.
        curve: Mean loss of every few steps.
        epochs: Passes that were made.
        images_per_second: While learning.
        classes: How many classes each target had.
    """

    model: Embedder
    curve: list[float]
    epochs: int
    images_per_second: float
    classes: list[int]


def keep_memory() -> None:
    """Let glibc keep freed memory: large maps are otherwise mapped anew, and zeroed by the kernel, each step."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):  # Another C library: slower, not wrong.
        return


def has_bfloat16(device: str) -> bool:
    """Whether products of bfloat16 are quicker there; a processor that only imitates them takes ten times as long."""
    if device == "cpu":
        able = torch.cpu.get_capabilities()
        return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def make_embedder(params: EmbedderParams, attributes: dict[str, int]) -> Embedder:
    """A network to train, on the trunk that the parameters name.

    Raises:
        ConfigError: There is no such trunk.
    """
    trunk: nn.Module
    if params.trunk in VARIANTS:
        start = params.weights if params.weights in ("imagenet", "none") else "none"
        trunk = make_trunk(start, params.trunk)
    elif params.trunk.startswith("hub:"):
        trunk = make_hub_trunk(params.trunk.removeprefix("hub:"), params.size)
    else:
        raise ConfigError(f"`$.params.trunk` is '{params.trunk}'; expected {', '.join(VARIANTS)} or hub:NAME")
    model = Embedder(
        trunk, params.dim, params.colour_dim, attributes, params.dropout, params.told, params.told_dim,
        params.told_weights,
    )  # fmt: skip
    if params.weights not in ("imagenet", "none"):
        _go_on(model, pathlib.Path(params.weights))
    return model


def _go_on(model: Embedder, folder: pathlib.Path) -> None:
    """Fill a network with the weights of a bundle, as far as their shapes are the same: heads may differ.

    A part of the vector that weighs nothing in the bundle weighs what it does in a new network: it would never be seen.
    """
    found = _fitting(model, folder)
    if not any(name.startswith("trunk.") for name in found):
        raise ConfigError(
            f"`$.params.weights` is '{folder}', whose trunk is another; expected the same trunk"
        )
    model.load_state_dict(found, strict=False)


def _fitting(model: Embedder, folder: pathlib.Path) -> dict[str, Tensor]:
    """Weights of a bundle that have a place in a network; which ways attributes are told is the config's to say."""
    own = model.state_dict()
    return {
        name: value
        for name, value in bundle_weights(folder).items()
        if name in own
        and own[name].shape == value.shape
        and not name.startswith(WAY)
        and (name not in SHARES or value > 0)
    }


class Front:
    """What of the trunk stays as it is, and how pictures pass through it.

    Args:
        model: The embedder.
        frozen: Leading parts.
    """

    def __init__(self, model: Embedder, frozen: int) -> None:
        trunk = model.trunk
        self.frozen = frozen
        self.short = has_bfloat16(next(trunk.parameters()).device.type)
        self.lite = trunk if isinstance(trunk, Lite) else None
        if self.lite is not None:
            self.steady = folded(self.lite).parts[:frozen].to(memory_format=torch.channels_last)
            for part in self.lite.parts[:frozen]:
                part.requires_grad_(False).eval()
        elif frozen:
            trunk.requires_grad_(False).eval()
        self.trunk = trunk

    def set_training(self, model: Embedder) -> None:
        """Training mode for all that learns."""
        model.train()
        if self.lite is not None:
            for part in self.lite.parts[: self.frozen]:
                part.eval()
        elif self.frozen:
            self.trunk.eval()

    def maps(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The trunk's two maps of float[B, 3, S, S] in 0..255."""
        x = ((values - MEAN) / SCALE).contiguous(memory_format=torch.channels_last)
        if self.lite is None:
            half, full = self.trunk(x)
            return half, full
        if self.frozen:
            with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=self.short):
                for part in self.steady:
                    x = part(x)
            x = x.float()
        half = self.lite.run(x, self.frozen, self.lite.middle)
        return half, self.lite.run(half, self.lite.middle)


class Average:
    """Running average of all weights and statistics (Polyak), quick at first.

    Args:
        model: What is averaged.
        decay: Share of the past that a step keeps, in the long run; 0 keeps the last weights only.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def step(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                self.kept[name].lerp_(value, 1 - keep)
            else:
                self.kept[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return {"kept": self.kept, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.kept, self.steps = state["kept"], state["steps"]

    def into(self, model: Embedder) -> Embedder:
        """A copy of the model with the averaged weights."""
        out = copy.deepcopy(model)
        out.load_state_dict(self.kept)
        return out.eval()


class Checkpoint:
    """A training between two epochs, in one file.

    Args:
        path: Of the file; None keeps nothing.
        parts: All that has a state.
        order: Randomness of the order of pictures.
        light: Randomness of the views.
    """

    def __init__(
        self,
        path: pathlib.Path | None,
        parts: Sequence[Any],
        order: np.random.Generator,
        light: torch.Generator,
    ) -> None:
        self.path, self.parts, self.order, self.light = path, parts, order, light

    def load(self) -> tuple[int, list[float]] | None:
        """Epochs that are done and the curve so far, with everything put back; None if there is no file."""
        if self.path is None or not self.path.is_file():
            return None
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        for part, told in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(told)
        self.order.bit_generator.state = json.loads(state["order"])
        self.light.set_state(state["light"])
        torch.set_rng_state(state["noise"])
        return state["epoch"], state["curve"]

    def save(self, epoch: int, curve: list[float]) -> None:
        """Write everything; the file is whole or the old one."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        staged = self.path.with_suffix(".tmp")
        torch.save(
            {
                "parts": [part.state_dict() for part in self.parts], "light": self.light.get_state(),
                "order": json.dumps(self.order.bit_generator.state), "noise": torch.get_rng_state(),
                "epoch": epoch, "curve": curve,
            },
            staged,
        )  # fmt: skip
        staged.rename(self.path)


def fit(
    samples: Samples,
    targets: Sequence[Target],
    attributes: Sequence[str],
    params: EmbedderParams,
    seed: int,
    words: str = "",
    resume: pathlib.Path | None = None,
    progress: Progress = lambda line: None,
) -> Fit:
    """Train an embedder.

    Args:
        samples: All pictures; those of the split LEARN are learned from.
        targets: What vectors are pulled together by.
        attributes: Labels with a head.
        params: The embedder's own.
        seed: Of all randomness.
        words: Label with a text that vectors are pulled to, or empty.
        resume: File that everything is written to after each epoch, and gone on from if it is there; it is the caller's
            to remove once what follows has worked too.
        progress: Told of every epoch.

    Raises:
        ConfigError: The trunk cannot be made, or a target has fewer than two classes.
    """
    keep_memory()
    torch.manual_seed(seed)
    model = make_embedder(params, {name: samples.learned[name] for name in attributes})
    model.to(memory_format=torch.channels_last)
    start = _fitting(model, pathlib.Path(params.weights)) if params.blend else {}
    front = Front(model, params.frozen)
    rows = np.repeat(np.arange(len(samples)), np.where(samples.split == LEARN, samples.repeat, 0))
    if len(rows) < 2:
        raise ConfigError(f"`$.sources` leave {len(rows)} picture to learn from; expected at least 2")
    labels, losses = make_targets(samples, targets, params, rows)
    aims = Aims(samples, targets, attributes, labels, losses, params, words)
    optimiser = _optimiser(model, [losses, aims.words], params)
    batch = min(params.batch, len(rows))
    steps = len(rows) // batch * params.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [group["lr"] for group in optimiser.param_groups], total_steps=max(steps, 1),
        pct_start=WARM_UP, div_factor=10.0, final_div_factor=100.0, cycle_momentum=False,
    )  # fmt: skip
    average = Average(model, params.average)
    order, light = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    curve, recent, seen, started, done = [], [], 0, time.monotonic(), 0
    kept = Checkpoint(resume, [model, losses, aims.words, optimiser, schedule, average], order, light)
    if (told := kept.load()) is not None:
        done, curve = told
        progress(f"going on after epoch {done}")
    front.set_training(model)
    for epoch in range(done + 1, params.epochs + 1):
        total, count = 0.0, 0
        shuffled = order.permutation(rows)
        for first in range(0, len(shuffled) - batch + 1, batch):
            some = np.sort(shuffled[first : first + batch])
            pictures = torch.from_numpy(samples.take(some))
            jitter = torch.from_numpy(samples.jitter[some])
            values = views(pictures, params.train_size, params.crop, jitter, light)
            parts = model.parts(values / 255.0, *front.maps(values))
            loss = aims.loss(model, parts, some)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
            optimiser.step()
            schedule.step()
            average.step(model)
            recent.append(loss.item())
            if len(recent) == LOG_STEPS:
                curve.append(float(np.mean(recent)))
                recent = []
            total, count, seen = total + loss.item() * len(some), count + len(some), seen + len(some)
        spent = time.monotonic() - started
        progress(f"epoch {epoch}: loss {total / max(count, 1):.4f}, {seen / spent:.0f} pictures a second")
        done = epoch
        kept.save(done, curve)
        if spent > params.max_seconds:
            progress(
                f"stopped after {epoch} epochs: {spent:.0f} of {params.max_seconds:.0f} seconds are spent"
            )
            break
    rate = seen / max(time.monotonic() - started, 1e-6)
    return Fit(
        blended(average.into(model), start, params.blend), curve, done, rate, [len(loss) for loss in losses]
    )


def blended(model: Embedder, start: dict[str, Tensor], share: float) -> Embedder:
    """A model whose weights lie between its own and those that it started from.

    Args:
        model: Trained; changed in place.
        start: Weights by name; what is not in it stays as it is.
        share: Of these; the model's own have the rest.
    """
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name in start and value.dtype.is_floating_point:
                value.lerp_(start[name].to(value.dtype), share)
    return model


def _optimiser(model: Embedder, losses: Sequence[nn.Module], params: EmbedderParams) -> torch.optim.Optimizer:
    trunk = {id(value) for value in model.trunk.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for value in [*model.parameters(), *(value for loss in losses for value in loss.parameters())]:
        if value.requires_grad:
            groups.setdefault((id(value) in trunk, value.ndim > 1), []).append(value)
    return torch.optim.AdamW(
        [
            {
                "params": values,
                "lr": params.learning_rate * (1.0 if in_trunk else params.head_rate),
                "weight_decay": params.weight_decay if matrix else 0.0,
            }
            for (in_trunk, matrix), values in groups.items()
        ]
    )
