"""Training on: the user's network on random crops of the user's images, the best epoch kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from poolbench.core import TrainConfig
from poolbench.data import Dataset, Split
from poolbench.engine.checkpoint import Checkpoint, UnfitCheckpoint, pack, unpack
from poolbench.engine.loop import Training, check_finite
from poolbench.engine.networks import OneNetwork

LEARNING_RATE = 3e-4
STATISTICS_IMAGES = 2000


@dataclass(frozen=True)
class CropSource:
    """Random crops (3, size, size) of larger uint8 images (n, 3, large, large): a training source of the epoch loop."""

    larger: Tensor
    labels: Tensor
    size: int

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, generator: torch.Generator, shuffle: bool) -> Tensor:
        """Return rows (n, 3): image, top and left of the crop; the crop is drawn anew every epoch."""
        count, margin = len(self), self.larger.shape[-1] - self.size
        order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
        corners = torch.randint(margin + 1, (count, 2), generator=generator)
        return torch.cat([order[:, None], corners], dim=1)

    def render(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the crops (b, 3, size, size) and labels (b,) of rows (b, 3)."""
        index, top, left = rows.unbind(1)
        span = torch.arange(self.size, device=rows.device)
        y, x = (top[:, None] + span)[:, None, :, None], (left[:, None] + span)[:, None, None, :]
        channels = torch.arange(self.larger.shape[1], device=rows.device)[None, :, None, None]
        return self.larger[index[:, None, None, None], channels, y, x], self.labels[index]

    def held_out(self, fraction: float, seed: int) -> tuple[CropSource, Split]:
        """Return (train, validation); validation holds the centre crops of ``fraction`` of every class."""
        whole = Split(self.larger, self.labels)
        train, validation = whole.held_out(fraction, seed)
        margin = (self.larger.shape[-1] - self.size) // 2
        centre = slice(margin, margin + self.size)
        return replace(self, larger=train.images, labels=train.labels), Split(
            validation.images[..., centre, centre].contiguous(), validation.labels
        )

    def subset(self, count: int, seed: int) -> Tensor:
        """Return the mask (n,) of ``count`` images chosen by ``seed`` (see :meth:`poolbench.data.Split.subset`)."""
        return Split(self.larger, self.labels).subset(count, seed)


@dataclass(frozen=True)
class FineTuning:
    """How networks are trained on: AdamW with a one-cycle schedule; ``validation``: part of the images held out."""

    epochs: int
    batch_size: int = 64
    validation: float = 0.1

    def config(self) -> TrainConfig:
        return TrainConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=LEARNING_RATE,
            optimizer="adamw",
            weight_decay=0.01,
            schedule="one_cycle",
        )


@dataclass(frozen=True)
class Kept:
    """Where a training keeps its state between epochs: ``read`` returns None if there is none."""

    name: str
    read: Callable[[], bytes | None]
    write: Callable[[bytes], None]


def fine_tune(
    network: nn.Module,
    source: CropSource,
    options: FineTuning,
    seed: int,
    device: str,
    kept: Kept,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> nn.Module:
    """Return a copy of the network with the weights of the epoch that is best on the held-out images.

    The weights at the start are among the candidates, so that training cannot make it worse there. Resumes from
    ``kept``. Raises TrainingDiverged when the loss becomes NaN or infinite.
    """
    network = copy.deepcopy(network).to(device).requires_grad_(True)
    train, validation = source.held_out(options.validation, seed=0)
    data = Dataset("own", (), train, validation, (), (), "", "")
    one = OneNetwork(network)
    training = Training(one, data, options.config(), [seed])
    best, rows = _restored(training, kept, device)
    if best is None:
        loss, accuracy = one.evaluate(validation, "none")[0]
        best = {"score": (accuracy, -loss), "weights": _copied(network.state_dict())}
    while training.epoch < options.epochs:
        (row,) = training.run_epoch()
        check_finite(row)
        rows.append(row)
        if (score := (row["val_accuracy"], -row["val_loss"])) > tuple(best["score"]):
            best = {"score": score, "weights": _copied(network.state_dict())}
        state = {**training.states()[0], "best": best}
        kept.write(pack(Checkpoint(state, rows, 0.0), kept.name, device))
        on_epoch(training.epoch)
    network.load_state_dict(best["weights"])
    return network.eval().requires_grad_(False)


def _restored(training: Training, kept: Kept, device: str) -> tuple[dict[str, Any] | None, list[dict[str, float]]]:
    """Resume a training where it stopped; return the best weights so far and the epochs, (None, []) at a start."""
    content = kept.read()
    if content is None:
        return None, []
    try:
        checkpoint = unpack(content, kept.name, device)
    except UnfitCheckpoint:
        return None, []
    training.restore([checkpoint.state])
    return dict(checkpoint.state["best"]), checkpoint.rows


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the layers of a network with running statistics."""
    return [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats
    ]


def with_new_statistics(network: nn.Module, crops: Iterator[Tensor]) -> nn.Module:
    """Return a copy of the network whose BatchNorm statistics are the plain mean over batches of crops.

    Each crop is the network's input (b, 3, size, size). Other layers stay in eval mode, so that dropout is off.
    """
    network = copy.deepcopy(network).eval()
    layers = batch_norms(network)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
        layer.train()
    with torch.no_grad():
        for batch in crops:
            network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return network.eval()
