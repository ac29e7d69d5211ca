"""Training of the embedder from a config to a bundle, and what its run in MLflow shows.

Belongs here: the order of the steps, what is logged. Does not belong here: the steps.
"""

from __future__ import annotations

import hashlib
import pathlib
import time
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from training import tracking
from training.config import Bundle, read_config, stage
from training.visual import review
from training.visual.bundles import finish, sha256
from training.visual.config import EmbedderConfig, check_embedder
from training.visual.embedder_data import LEARN, TEST, VALIDATE, Samples, read_samples
from training.visual.embedder_export import check_parity, export_embedder, open_session
from training.visual.embedder_fit import Fit, fit
from training.visual.embedder_judge import (
    Judgement,
    Shares,
    as_index,
    attribute_accuracy,
    choose_shares,
    embed_rows,
    judged,
    reshare,
    self_first,
)
from training.visual.embedder_show import show
from training.visual.quantize import quantize_convolutions
from training.visual.trunk import told_trunk

Progress = Callable[[str], None]
Vectors = npt.NDArray[np.float32]

GRAPH, WEIGHTS = "embedder.onnx", "weights.pt"
PARITY_PICTURES = 8
CALIBRATION = 96


def run(path: pathlib.Path, progress: Progress = lambda line: None) -> Bundle:
    """Train from a config file; see `train`."""
    return train(read_config(path, EmbedderConfig), progress)


def train(config: EmbedderConfig, progress: Progress = lambda line: None) -> Bundle:
    """Train an embedder, export, judge the exported graph, log, and write the bundle.

    Raises:
        ConfigError: The config's parts do not fit together, or pictures cannot be read.
        ParityError: The exported graph and the network disagree.
    """
    check_embedder(config)
    torch.set_num_threads(config.threads)
    params, started = config.params, time.monotonic()
    staged = stage(config.out)
    with tracking.start(config) as active:
        samples = read_samples(config.sources, params, pathlib.Path(config.home), config.seed, progress)
        for source in config.sources:
            tracking.log_dataset(source.name, source=source.root, digest=samples.digest, context="train")
        progress(f"{len(samples)} pictures, {int((samples.split == TEST).sum())} of them for reporting only")
        checkpoint = _checkpoint(config, samples)
        learned = fit(
            samples,
            config.targets,
            config.attributes,
            params,
            config.seed,
            config.words,
            checkpoint,
            progress,
        )
        judgement, gap = export_and_judge(config, samples, learned, staged, progress)
        numbers = {**judgement.numbers(), "onnx_largest_difference": gap}
        told = {name: value for name, value in numbers.items() if np.isfinite(value)}
        facts = _facts(config, samples, learned, time.monotonic() - started)
        text = review.card(
            f"Embedder of {config.retailer}",
            f"A picture becomes {params.dim} numbers of length 1; what looks alike lies near. Of these, "
            f"{params.colour_dim} tell colour. It also names {', '.join(config.attributes) or 'no attributes'}.",
            facts, told,
            [
                "It was judged on pictures like those it learned from; a shop's own photos may be harder.",
                "Values of attributes that it never saw are never named.",
                "It sees one item: what else is in the crop disturbs it.",
            ],
        )  # fmt: skip
        (staged / "model_card.md").write_text(text)
        np.savez(
            staged / "vectors.npz", key=np.array(samples.keys), source=np.array(samples.sources)[samples.source],
            split=samples.split, embedding=judgement.outputs["embedding"],
        )  # fmt: skip
        torch.save(learned.model.state_dict(), staged / WEIGHTS)
        model_id, uri = tracking.log_onnx(staged / GRAPH, "embedder")
        tracking.log_metrics(told, model_id)
        tracking.log_metrics(
            {"seconds": time.monotonic() - started, "pictures_per_second": learned.images_per_second}
        )
        tracking.log_curve("loss", learned.curve)
        tracking.log_model_card(text)
        show(config, samples, judgement)
        bundle = Bundle(
            family="embedder", run_id=active.info.run_id, model_uri=uri, metrics=told,
            config=msgspec.to_builtins(config),
            files={"embedder": GRAPH, "card": "model_card.md", "vectors": "vectors.npz", "weights": WEIGHTS},
            details={
                "settings": {
                    "size": params.size, "dim": params.dim, "margin": params.box_margin, "letterbox": params.letterbox,
                    "attributes": {n: list(samples.values[n][: samples.learned[n]]) for n in config.attributes},
                    "told": list(params.told), "told_at": list(params.told_at),
                    "told_weights": list(params.told_weights),
                    "base": facts["Trunk"],
                    "int8": judgement.int8_loss is not None and judgement.int8_loss <= params.int8_loss,
                },
                "colour_dim": params.colour_dim, "colour_share": judgement.shares.colour,
                "told_share": judgement.shares.told, "sha256": sha256(staged / GRAPH),
                "galleries": {answers.judge.name: answers.gallery for answers in judgement.answers},
                "queries": {answers.judge.name: len(answers.queries) for answers in judgement.answers},
                "data": samples.digest,
            },
        )  # fmt: skip
        finished = finish(config, staged, bundle)
        checkpoint.unlink(missing_ok=True)
        return finished


def _checkpoint(config: EmbedderConfig, samples: Samples) -> pathlib.Path:
    """Where a training that is cut off goes on from: the same config on the same pictures."""
    told = msgspec.structs.replace(config, out="-", tracking_uri="-", threads=1, tags={})
    digest = hashlib.sha256(msgspec.json.encode(told) + samples.digest.encode()).hexdigest()
    return pathlib.Path(config.home) / "cache" / "embedder" / f"{digest[:24]}.pt"


def export_and_judge(
    config: EmbedderConfig, samples: Samples, learned: Fit, staged: pathlib.Path, progress: Progress
) -> tuple[Judgement, float]:
    """Export, choose the weights of the parts on the validation part of the graph's own vectors, judge the test part.

    Returns:
        The judgement, and the largest difference of graph and network before any quantisation.
    """
    params, model = config.params, learned.model
    export_embedder(model, params.size, staged / GRAPH)
    progress("exported; all pictures through the graph")
    outputs = _outputs(open_session(staged / GRAPH, config.threads), samples)
    old = Shares(float(model.told_share), float(model.share))
    shares, tried = choose_shares(samples, config, outputs, old)
    if shares != old:
        model.told_share.fill_(shares.told)
        model.share.fill_(shares.colour)
        export_embedder(model, params.size, staged / GRAPH)
        outputs["embedding"] = reshare(outputs["embedding"], params, old, shares)
    some = samples.take(np.linspace(0, len(samples) - 1, PARITY_PICTURES).astype(np.int64))
    gap = check_parity(model, staged / GRAPH, params.size, some)
    int8_loss = None
    if params.int8 and config.judges and (samples.split == VALIDATE).any():
        outputs, int8_loss = quantised(config, samples, outputs, staged / GRAPH)
        progress(
            f"int8 loses {int8_loss:.4f} on the validation part; at most {params.int8_loss:g} is shipped"
        )
    vectors, index = outputs["embedding"], as_index(samples, config, outputs)
    validation = {}
    if (samples.split == VALIDATE).any():
        validation = {
            judge.name: judged(samples, judge, vectors, VALIDATE, index).mean for judge in config.judges
        }
    answers = [judged(samples, judge, vectors, TEST, index) for judge in config.judges]
    for one in answers:
        progress(
            f"{one.judge.name}: {one.mean:.4f} ({len(one.queries)} queries, {one.gallery} in the gallery), "
            f"validation {validation.get(one.judge.name, float('nan')):.4f}"
        )
    judgement = Judgement(
        outputs, validation, answers, shares, tried, attribute_accuracy(samples, outputs, TEST),
        self_first(samples, config, vectors), int8_loss,
    )  # fmt: skip
    return judgement, gap


def quantised(
    config: EmbedderConfig, samples: Samples, outputs: dict[str, Vectors], path: pathlib.Path
) -> tuple[dict[str, Vectors], float]:
    """Put an int8 graph in the place of the float one if it loses little on the validation part.

    Returns:
        Outputs of the graph that stays, and what int8 loses of the judges' weighted mean.
    """
    small = path.with_suffix(".int8.onnx")
    learn = np.flatnonzero(samples.split == LEARN)
    rows = np.sort(
        np.random.default_rng(config.seed).choice(learn, min(CALIBRATION, len(learn)), replace=False)
    )
    quantize_convolutions(path, small, [samples.take(rows[at : at + 16]) for at in range(0, len(rows), 16)])
    other = _outputs(open_session(small, config.threads), samples)
    weights = [judge.weight for judge in config.judges]
    means = []
    for found in (outputs, other):
        index = as_index(samples, config, found)
        asked = [judged(samples, judge, found["embedding"], VALIDATE, index).mean for judge in config.judges]
        means.append(np.average(asked, weights=weights))
    loss = float(means[0] - means[1])
    if loss > config.params.int8_loss:
        small.unlink()
        return outputs, loss
    small.replace(path)
    return other, loss


def _outputs(session: ort.InferenceSession, samples: Samples) -> dict[str, Vectors]:
    return embed_rows(session, samples, np.arange(len(samples)))


def _facts(config: EmbedderConfig, samples: Samples, learned: Fit, seconds: float) -> dict[str, str]:
    params = config.params
    sources = (f"{source.name} ({len(samples.of(source.name))})" for source in config.sources)
    parts = zip(config.targets, learned.classes, strict=True)
    targets = (
        f"{' and '.join(target.labels)} ({classes} classes, {target.part})" for target, classes in parts
    )
    return {
        "Trunk": told_trunk(params.trunk, params.weights),
        "Pictures": ", ".join(sources) + (", drawn, not photographed" if config.simulated else ""),
        "Learned from / chosen on / reported on": " / ".join(
            str(int((samples.split == part).sum())) for part in (0, VALIDATE, TEST)
        ),
        "Pulled together by": "; ".join(targets),
        "Loss": f"{params.loss}, {learned.epochs} epochs at {params.train_size} pixels, {params.frozen} parts frozen",
        "Read at": f"{params.size} pixels a side",
        "Time": f"{seconds:.0f} s on {config.threads} thread(s)",
        "Data": samples.digest[:16], "Code": tracking.code_version(),
    }  # fmt: skip
