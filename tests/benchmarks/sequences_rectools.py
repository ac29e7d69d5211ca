"""RecTools' side of the speed comparison; runs inside its own environment, never in ours.

``python sequences_rectools.py TASK OUT``: TASK (.npz) holds ``config`` (JSON: the model's arguments, ``target``,
``limit`` in seconds of the cores, after which training stops in the middle of an epoch, ``epochs``, ``seed``), the
lists that are learned from (``offsets, items``), the test histories (``asked_offsets, asked_items``) and their
``targets``. OUT gets JSON: seconds of training (wall, and of the cores) and NDCG@10 on the test requests after
every epoch. Answering is not counted.

Belongs here: calls of RecTools. Does not belong here: anything that imports our code.
"""

import json
import sys
import time
import warnings

import numpy as np


def main(task: str, out: str) -> None:
    """Train epoch by epoch until the target, the limit or the last epoch."""
    warnings.filterwarnings("ignore")
    import logging

    import pandas as pd
    import pytorch_lightning as lightning
    import torch
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    given = dict(np.load(task, allow_pickle=False))
    config = json.loads(str(given["config"]))
    torch.set_num_threads(config["threads"])
    lightning.seed_everything(config["seed"], verbose=False)

    def dataset(offsets: np.ndarray, items: np.ndarray) -> Dataset:
        user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        place = np.arange(len(items)) - offsets[user]
        when = pd.Timestamp("2020-01-01") + pd.to_timedelta(place, unit="D")
        frame = pd.DataFrame(
            {Columns.User: user, Columns.Item: items, Columns.Weight: 1.0, Columns.Datetime: when}
        )
        return Dataset.construct(frame)

    wall = cpu = began = 0.0

    class Limit(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *rest: object) -> None:
            trainer.should_stop = cpu + time.process_time() - began > config["limit"]

    def trainer() -> lightning.Trainer:
        return lightning.Trainer(
            callbacks=[Limit()], accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip

    learned = dataset(given["offsets"], given["items"])
    asked = dataset(given["asked_offsets"], given["asked_items"])
    model = SASRecModel(**config["model"], epochs=1, get_trainer_func=trainer, recommend_torch_device="cpu")
    users = np.arange(len(given["targets"]))
    curve, seconds, used = [], [], []
    for _ in range(config["epochs"]):
        started, began = time.monotonic(), time.process_time()
        model.fit_partial(learned, min_epochs=0, max_epochs=1)
        wall, cpu = wall + time.monotonic() - started, cpu + time.process_time() - began
        found = model.recommend(users=users, dataset=asked, k=10, filter_viewed=True)
        hit = found[
            found[Columns.Item].to_numpy() == given["targets"][found[Columns.User].to_numpy(dtype=int)]
        ]
        curve.append(float((1 / np.log2(hit[Columns.Rank].to_numpy() + 1.0)).sum() / len(users)))
        seconds.append(wall)
        used.append(cpu)
        print(f"epoch {len(curve)}: NDCG@10 {curve[-1]:.4f}, {wall:.0f} s", flush=True)
        with open(out, "w") as file:
            json.dump({"curve": curve, "seconds": seconds, "cpu_seconds": used}, file)
        if curve[-1] >= config["target"] or cpu > config["limit"]:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
