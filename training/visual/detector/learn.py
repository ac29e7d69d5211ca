"""The training loop: views in, a running average of weights out; left and taken up at any step.

Belongs here: steps, schedule, checks, checkpoints. Does not belong here: losses (`loss.py`), views (`augment.py`).
"""

from __future__ import annotations

import copy
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from training.visual.classes import CLASSES
from training.visual.detector import augment, loss
from training.visual.detector.network import STRIDE, Network, Peaks
from training.visual.detector.params import DetectorParams
from training.visual.detector.scenes import Scene, class_counts, draw_weights
from training.visual.detector.trunk import open_trunk
from training.visual.trunk import VARIANTS

Progress = Callable[[str], None]
Check = Callable[[nn.Module], float]

WARM_UP = 0.05
FLOOR = 0.01
WIDE_EVERY = 6
"""Where most pictures are upright, one batch of so many is a square; the rest are three quarters as wide."""


class PausedError(Exception):
    """The session's time is over; the same command goes on from the checkpoint."""


@dataclasses.dataclass
class Learned:
    """A trained network.

    Attributes:
        network: In evaluation mode.
        curves: Name to values: losses by step, checks.
        best_step: Step of the weights that were kept.
        seconds: Time spent on training.
    """

    network: Network
    curves: dict[str, list[float]]
    best_step: int
    seconds: float


def learn(
    sources: Sequence[tuple[float, Sequence[Scene]]], params: DetectorParams, check: Check, checkpoint: pathlib.Path,
    seed: int, progress: Progress,
) -> Learned:  # fmt: skip
    """Train a detector.

    Args:
        sources: Share in a batch, and scenes to learn from.
        params: See there.
        check: Score of a network on the validation part, the higher the better.
        checkpoint: File that a session which ends early leaves, and starts from if it is there.
        seed: Step t of a seed sees the same views in any session.
        progress: Told about checks.

    Raises:
        PausedError: `DetectorParams.session_seconds` are over and the checkpoint is written.
    """
    torch.manual_seed(seed)
    network = open_network(params)
    start_boxes(network, sources)
    average = copy.deepcopy(network).eval()
    matrices = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    trunk = {id(p) for p in network.trunk.parameters()}
    groups = [
        {
            "params": [
                p for p in network.parameters()
                if p.requires_grad and (id(p) in trunk) == in_trunk and (p.ndim > 1) == decays
            ],
            "lr": params.learning_rate * (params.trunk_rate if in_trunk and params.trunk in VARIANTS else 1.0),
            "weight_decay": params.weight_decay if decays else 0.0,
        }
        for in_trunk in (True, False) for decays in (True, False)
    ]  # fmt: skip
    assert matrices
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
    peaks = [group["lr"] for group in optimizer.param_groups]
    curves: dict[str, list[float]] = {"loss_centres": [], "loss_boxes": [], "validation_ap": []}
    best, best_step, first, before = -1.0, 0, 0, 0.0
    kept = copy.deepcopy(average.state_dict())
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        curves, kept, best, best_step = saved["curves"], saved["kept"], saved["best"], saved["best_step"]
        first, before = saved["step"], saved["seconds"]
        progress(f"detector: goes on at step {first}")
    chances = [(share, scenes, draw_weights(scenes)) for share, scenes in sources]
    upright = _mostly_upright(sources)
    started = time.monotonic()
    for step in range(first, params.steps):
        spent = before + time.monotonic() - started
        done = max(step / params.steps, spent / params.max_seconds if params.max_seconds else 0.0)
        if done >= 1:
            break
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * _rate(done)
        rng = np.random.default_rng((seed, step))
        centres, boxes = _step(
            network, optimizer, chances, params, rng, wide=not upright or step % WIDE_EVERY == 0
        )
        curves["loss_centres"].append(centres)
        curves["loss_boxes"].append(boxes)
        _follow(average, network, min(params.average, (step + 1) / (step + 10)))
        if (step + 1) % params.check_every == 0:
            best, best_step, kept = _checked(average, check, curves, best, best_step, kept, step + 1)
            recent = np.mean(curves["loss_centres"][-100:]), np.mean(curves["loss_boxes"][-100:])
            progress(
                f"detector: step {step + 1}, losses {recent[0]:.3f} {recent[1]:.3f}, "
                f"validation {curves['validation_ap'][-1]:.4f}, {spent:.0f} s"
            )
        if params.session_seconds and time.monotonic() - started > params.session_seconds:
            torch.save({
                "network": network.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(),
                "curves": curves, "kept": kept, "best": best, "best_step": best_step, "step": step + 1,
                "seconds": before + time.monotonic() - started,
            }, checkpoint)  # fmt: skip
            raise PausedError(f"left at step {step + 1} of {params.steps}; the same command goes on")
    best, best_step, kept = _checked(average, check, curves, best, best_step, kept, len(curves["loss_boxes"]))
    if params.keep == "last":
        best_step, kept = len(curves["loss_boxes"]), average.state_dict()
    average.load_state_dict(kept)
    return Learned(average, curves, best_step, before + time.monotonic() - started)


def open_network(params: DetectorParams) -> Network:
    """A network with its trunk's starting weights."""
    network = Network(open_trunk(params.trunk, params.weights), len(CLASSES), params.size, params.width)
    return network.to(memory_format=torch.channels_last)


def start_boxes(network: Network, sources: Sequence[tuple[float, Sequence[Scene]]]) -> None:
    """Let each class's boxes start at its mean size."""
    sums = np.zeros((len(CLASSES), 2))
    counts = np.zeros(len(CLASSES))
    for _, scenes in sources:
        counts += class_counts(scenes)
        for scene in scenes:
            scale = network.size / max(scene.pixels.shape[:2]) / STRIDE / 2
            sides = np.log(np.maximum((scene.boxes[:, 2:] - scene.boxes[:, :2]) * scale, 0.25))
            np.add.at(sums, scene.classes, sides)
    mean = sums / np.maximum(counts, 1)[:, None]
    with torch.no_grad():
        bias = network.reach[1].bias.view(len(CLASSES), 4)
        bias.copy_(torch.from_numpy(mean[:, [0, 1, 0, 1]]).to(bias.dtype))


def _mostly_upright(sources: Sequence[tuple[float, Sequence[Scene]]]) -> bool:
    """Whether most views are of pictures that are at most three quarters as wide as high."""
    shares = [
        share * np.mean([scene.pixels.shape[1] <= 0.75 * scene.pixels.shape[0] for scene in scenes])
        for share, scenes in sources
    ]
    return bool(sum(shares) > 0.5 * sum(share for share, _ in sources))


def _rate(done: float) -> float:
    if done < WARM_UP:
        return (done + 0.002) / WARM_UP
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def _step(
    network: Network, optimizer: torch.optim.Optimizer,
    sources: Sequence[tuple[float, Sequence[Scene], np.ndarray]], params: DetectorParams, rng: np.random.Generator,
    wide: bool,
) -> tuple[float, float]:  # fmt: skip
    height = params.size
    width = params.size if wide else params.size // 128 * 96 + params.size % 128 // 32 * 32
    shares = np.array([share for share, _, _ in sources])
    counts = rng.multinomial(params.batch, shares / shares.sum())
    pixels, boxes, classes = [], [], []
    for (_, scenes, chances), count in zip(sources, counts, strict=True):
        if count:
            seen, found, kinds = augment.batch(scenes, chances, int(count), height, width, params.size, rng)
            pixels.append(seen)
            boxes += found
            classes += kinds
    wanted = loss.targets(boxes, classes, len(CLASSES), height, width)
    network.train()
    logits, reach, features = network(torch.from_numpy(np.concatenate(pixels)))
    centres, edges = loss.losses(logits, reach, features, network.edges, wanted)
    optimizer.zero_grad(set_to_none=True)
    (centres + params.box_weight * edges).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 10.0)
    optimizer.step()
    return centres.item(), edges.item()


@torch.no_grad()
def _follow(average: Network, network: Network, decay: float) -> None:
    state = network.state_dict()
    for name, value in average.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(state[name], 1 - decay)
        else:
            value.copy_(state[name])


def _checked(
    average: Network, check: Check, curves: dict[str, list[float]], best: float, best_step: int,
    kept: dict[str, torch.Tensor], step: int,
) -> tuple[float, int, dict[str, torch.Tensor]]:  # fmt: skip
    score = check(Peaks(average).eval())
    curves["validation_ap"].append(score)
    if score >= best:
        return score, step, copy.deepcopy(average.state_dict())
    return best, best_step, kept
