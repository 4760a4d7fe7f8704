"""A careful loop in PyTorch within a time: networks of timm with the weights of this package's networks.

    python benchmarks/budget_peer.py --images photos --minutes 10 --networks efficientnet_lite0

For each rate and network: a linear head on the frozen network, then everything with AdamW, a cosine and
flips, with frozen statistics of BatchNorm, for as many epochs as fit, 12 at most. The validation images
choose the epoch and the model; the test images are scored once. `budget.py` starts it.
"""

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import normalize

from transfer_jax import TrainConfig, create_model
from transfer_jax.data import ImageDataset, image_fetch
from transfer_jax.models.flat_arrays import split
from transfer_jax.runs.resolve import resolve
from transfer_jax.weights import find_spec, load_pretrained
from transfer_jax.weights.key_mapping import to_library

RATES = (3e-4, 1e-4, 1e-3)
EPOCHS, HEAD_EPOCHS, BATCH = 12, 40, 32
TIMM = {"mobilenet_v2": "mobilenetv2_100"}
"""Names of timm, where they are not ours."""
Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""uint8 images, labels and weights."""


def network_of(name: str, classes: int) -> torch.nn.Module:
    """Returns timm's network with our weights and a new head."""
    import timm

    model = create_model(name, 2, abstract_backbone=True)
    load_pretrained(model, find_spec(name))
    _, params, stats = split(model)
    ours = {path: array for path, array in {**params, **stats}.items() if not path.startswith("head/")}
    arrays = {key: torch.from_numpy(np.array(x)) for key, x in to_library(name, ours, "timm").items()}
    network = timm.create_model(TIMM.get(name, name), num_classes=classes)
    missing, unexpected = network.load_state_dict(arrays, strict=False)
    assert not unexpected, unexpected
    assert all("classifier" in key or key.endswith("num_batches_tracked") for key in missing), missing
    return network.eval().to(memory_format=torch.channels_last)


def read(dataset: ImageDataset, preprocessing: Any) -> Part:
    """Returns all images of a part in memory."""
    fetch, rows = image_fetch(dataset, preprocessing), np.arange(len(dataset))
    images = np.concatenate([fetch(rows[at : at + 64])["image"] for at in range(0, len(rows), 64)])
    weights = np.ones(len(dataset), np.float32) if dataset.weights is None else dataset.weights
    return torch.from_numpy(images), torch.from_numpy(dataset.labels).long(), torch.from_numpy(weights)


@torch.no_grad()
def accuracy(network: torch.nn.Module, name: str, part: Part) -> float:
    """Returns the weighted accuracy of a part."""
    images, labels, weights = part
    found = [network(normalize(name, batch)).argmax(1) for batch in images.split(64)]
    return float(((torch.cat(found) == labels) * weights).sum() / weights.sum())


def train_head(network: Any, name: str, train: Part) -> None:
    """Trains the head on features of the frozen network."""
    images, labels, weights = train
    with torch.no_grad():
        features = torch.cat(
            [
                network.forward_head(network.forward_features(normalize(name, batch)), pre_logits=True)
                for batch in images.split(64)
            ]
        )
    head = network.get_classifier()
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, HEAD_EPOCHS)
    for _ in range(HEAD_EPOCHS):
        for rows in torch.randperm(len(features)).split(BATCH):
            losses = torch.nn.functional.cross_entropy(head(features[rows]), labels[rows], reduction="none")
            optimizer.zero_grad()
            (losses * weights[rows]).mean().backward()
            optimizer.step()
        schedule.step()


def epochs_of(network: Any, name: str, train: Part, rate: float, count: int, until: float) -> Any:
    """Trains everything, and yields after each epoch; ends when the time is over."""
    images, labels, weights = train
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)
    for _ in range(count):
        for rows in torch.randperm(len(images)).split(BATCH):
            if time.monotonic() > until:
                return
            batch = normalize(name, images[rows])
            batch = torch.where((torch.rand(len(rows)) < 0.5)[:, None, None, None], batch.flip(3), batch)
            losses = torch.nn.functional.cross_entropy(network(batch), labels[rows], reduction="none")
            optimizer.zero_grad()
            (losses * weights[rows]).mean().backward()
            optimizer.step()
        schedule.step()
        yield


def main() -> None:
    """Reads the command line."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", type=float, default=0.25)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--networks", nargs="+", required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    best: tuple[float, str, Any] | None = None
    test, classes = None, 0
    end = started + 60 * arguments.minutes
    parts: dict[str, tuple[Part, Part, Any]] = {}
    for rate, name in ((rate, name) for rate in RATES for name in arguments.networks):
        if best is not None and time.monotonic() > end - 0.1 * 60 * arguments.minutes:
            break
        if name not in parts:
            config = TrainConfig(
                images=arguments.images, model=name, seed=arguments.seed, test_fraction=arguments.test
            )
            run = resolve(config, given=("images", "model", "seed", "test_fraction"))
            preprocessing, test, classes = run.network.preprocessing, run.test, run.train.task.outputs
            parts[name] = read(run.train, preprocessing), read(run.evaluation, preprocessing), preprocessing
        train, validation, _ = parts[name]
        network = network_of(name, classes)
        train_head(network, name, train)
        scored = accuracy(network, name, validation)
        if best is None or scored > best[0]:
            best = scored, f"{name}, head", (name, copy.deepcopy(network.state_dict()))
        left = end - time.monotonic()
        for epoch, _ in enumerate(epochs_of(network, name, train, rate, EPOCHS, end - 0.05 * left), 1):
            scored = accuracy(network, name, validation)
            if scored > best[0]:
                best = (
                    scored,
                    f"{name}, {epoch} epochs, rate {rate:g}",
                    (name, copy.deepcopy(network.state_dict())),
                )
    assert best is not None
    assert test is not None
    scored, text, (name, state) = best
    network = network_of(name, len(test.class_names))
    network.load_state_dict(state)
    tested = accuracy(network, name, read(test, parts[name][2]))
    row = {"test accuracy": tested, "validation accuracy": scored, "model": text, "expected optimism": None}
    print(row, f"{time.monotonic() - started:.0f} s")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(row))


if __name__ == "__main__":
    main()
