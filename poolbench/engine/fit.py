"""The training loop: networks side by side, one per seed; no host synchronisation inside an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import TrainConfig, UsageError, derive_seed
from poolbench.data import Dataset, Split
from poolbench.data.augment import augment, draw_augmentations
from poolbench.engine.optimisation import build_optimizer, learning_rate
from poolbench.geometry import disc_mask
from poolbench.measures.classification import predictions

EVALUATION_BATCH = 500

Transform = Callable[[Tensor], Tensor]
Row = dict[str, float]


class TrainingDiverged(RuntimeError):
    """The training loss is no longer a number."""


def loss_of(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean loss: cross entropy of logits (b, c), binary cross entropy of one logit (b, 1).

    ``smoothing`` of every target's mass is spread evenly over all classes (Szegedy et al. 2016).
    """
    if logits.shape[1] == 1:
        targets = labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits[:, 0], targets)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def to_pixels(images: Tensor, masked: bool = False) -> Tensor:
    """Return uint8 images (b, c, h, w) as floats in [0, 1]; ``masked`` blackens all outside the disc.

    Channels last: convolutions with few channels run up to four times faster so on a CPU.
    """
    pixels = images.to(torch.float32, memory_format=torch.channels_last) / 255
    if masked:
        pixels = pixels * disc_mask((images.shape[-2], images.shape[-1]), images.device)
    return pixels


class Networks(Protocol):
    """Networks of one architecture behind one interface; tensors have the networks r as their first axis."""

    parameters: list[Tensor]
    """What the optimiser updates, in the order of each network's own parameters."""
    spared_dim: int
    """Parameters of up to so many dimensions are vectors or numbers."""

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the training logits (r, b, outputs) of pixels (r, b, c, h, w)."""
        ...

    def losses(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        """Return the mean losses (r,) of logits (r, b, outputs) and labels (r, b)."""
        ...

    def evaluate(self, split: Split, masked: bool) -> list[tuple[float, float]]:
        """Return (mean loss, accuracy) of each network over a split."""
        ...

    def split(self, value: Tensor) -> list[Tensor]:
        """Return each network's own part of a tensor that has the shape of a parameter."""
        ...

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the tensor that :meth:`split` took apart."""
        ...

    def states(self) -> list[dict[str, Tensor]]:
        """Return each network's state dict."""
        ...

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Take each network's state dict over."""
        ...

    def close(self) -> None:
        """Leave the trained weights in the networks' own modules, in eval mode."""
        ...


class OneNetwork:
    """A single network, as it is."""

    spared_dim = 1

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parameters: list[Tensor] = list(model.parameters())

    def logits(self, pixels: Tensor) -> Tensor:
        if not self.model.training:
            self.model.train()
        logits: Tensor = self.model(pixels[0])
        return logits[None]

    def losses(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        return loss_of(logits[0], labels[0], smoothing)[None]

    def evaluate(self, split: Split, masked: bool) -> list[tuple[float, float]]:
        return [evaluate(self.model, split, masked)]

    def split(self, value: Tensor) -> list[Tensor]:
        return [value]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0]

    def states(self) -> list[dict[str, Tensor]]:
        return [self.model.state_dict()]

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        self.model.load_state_dict(states[0])

    def close(self) -> None:
        self.model.eval()


class Training:
    """Networks in training: ``run_epoch`` until ``epoch`` has reached the configuration's epochs.

    Each network has a seed, and from it streams of its own for the order of batches and the augmentation.
    What draws inside of a network (dropout, random pools) shares one stream, that of the first seed, from
    which every network gets numbers of its own. The global random stream is left as it was.
    """

    def __init__(
        self, networks: Networks, dataset: Dataset, config: TrainConfig, seeds: Sequence[int], masked: bool = False
    ) -> None:
        # A dying network fills with denormal floats, which cost a CPU 20 times the time of zeros.
        torch.set_flush_denormal(True)
        self.networks, self.dataset, self.config, self.masked = networks, dataset, config, masked
        self.epoch = 0
        self.device = networks.parameters[0].device
        self.optimizer = build_optimizer(config, networks.parameters, networks.spared_dim)
        self.orders = [torch.Generator().manual_seed(derive_seed(seed, "order of batches")) for seed in seeds]
        self.augmentations = [torch.Generator().manual_seed(derive_seed(seed, "augmentation")) for seed in seeds]
        self._noise: list[Tensor] = []
        with self._noise_stream():
            torch.manual_seed(derive_seed(seeds[0], "noise in the network"))
        if config.precision == "bfloat16" and self.device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
            raise UsageError(f"{torch.cuda.get_device_name(self.device)} has no bfloat16; train with precision=float32")

    def run_epoch(self) -> list[Row]:
        """Train one epoch and return a row per network: epoch, train_ and val_ loss and accuracy.

        ``epoch`` counts from 1; ``train_loss`` and ``train_accuracy`` are means over the epoch's batches,
        while the weights move; ``val_loss`` and ``val_accuracy`` those of the test split after the epoch. A
        network that diverged has a loss that is not finite, and the others are none the worse for it.
        """
        config, device, size = self.config, self.device, self.config.batch_size
        source = self.dataset.train
        count = len(source)
        # All draws of an epoch travel to the device at once: a copy per batch would stall a GPU.
        samples = torch.stack([source.draw(order, config.shuffle) for order in self.orders]).to(device)
        drawn = [draw_augmentations(config.augmentations, count, stream) for stream in self.augmentations]
        draws = {kind: torch.stack([draw[kind] for draw in drawn]).to(device) for kind in drawn[0]}
        loss_sum = torch.zeros(len(samples), device=device)
        correct = torch.zeros(len(samples), device=device)
        batches = -(-count // size)
        with self._noise_stream():
            for batch in range(batches):
                part = slice(batch * size, (batch + 1) * size)
                images, labels = source.render(samples[:, part].flatten(0, 1))
                pixels = augment(
                    to_pixels(images, self.masked), {k: v[:, part].flatten(0, 1) for k, v in draws.items()}
                )
                labels = labels.unflatten(0, (len(samples), -1))
                with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                    logits = self.networks.logits(pixels.unflatten(0, labels.shape))
                if config.precision == "bfloat16":
                    logits = logits.float()
                losses = self.networks.losses(logits, labels, config.label_smoothing)
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(config, self.epoch * batches + batch, config.epochs * batches)
                self.optimizer.zero_grad()
                losses.sum().backward()
                self.optimizer.step()
                loss_sum += losses.detach() * labels.shape[1]
                correct += (predictions(logits.detach().flatten(0, 1)).view_as(labels) == labels).sum(1)
        self.epoch += 1
        rows: list[Row] = []
        evaluated = self.networks.evaluate(self.dataset.test, self.masked)
        for loss, right, (val_loss, val_accuracy) in zip(loss_sum.tolist(), correct.tolist(), evaluated, strict=True):
            row = {"epoch": self.epoch, "train_loss": loss / count, "train_accuracy": right / count}
            rows.append({**row, "val_loss": val_loss, "val_accuracy": val_accuracy})
        return rows

    @contextmanager
    def _noise_stream(self) -> Iterator[None]:
        """Put the networks' noise on the global stream, and the stream back where it was."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            if self._noise:
                torch.set_rng_state(self._noise[0])
                if self.device.type == "cuda":
                    torch.cuda.set_rng_state(self._noise[1], self.device)
            yield
            self._noise = [torch.get_rng_state()]
            if self.device.type == "cuda":
                self._noise.append(torch.cuda.get_rng_state(self.device))

    def states(self) -> list[dict[str, Any]]:
        """Return for each network all that its training goes on from: tensors, numbers, lists and dicts."""
        models = self.networks.states()
        found: list[dict[str, Any]] = [
            {
                "epoch": self.epoch,
                "model": model,
                "optimizer": {},
                "order": order.get_state(),
                "augmentation": augmentation.get_state(),
                "noise": self._noise,
            }
            for model, order, augmentation in zip(models, self.orders, self.augmentations, strict=True)
        ]
        for index, state in self.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                # The number of steps is one for all.
                parts = [value] * len(found) if name == "step" else self.networks.split(value)
                for own, part in zip(found, parts, strict=True):
                    own["optimizer"].setdefault(index, {})[name] = part
        return found

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on where :meth:`states` was taken; all networks at the same epoch."""
        first = states[0]
        self.epoch, self._noise = first["epoch"], list(first["noise"])
        self.networks.load([state["model"] for state in states])
        for state, order, augmentation in zip(states, self.orders, self.augmentations, strict=True):
            order.set_state(state["order"])
            augmentation.set_state(state["augmentation"])
        joined = {
            index: {
                name: value if name == "step" else self.networks.join([s["optimizer"][index][name] for s in states])
                for name, value in own.items()
            }
            for index, own in first["optimizer"].items()
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": joined})


def check_finite(row: Row) -> None:
    """Raise TrainingDiverged where the training loss of an epoch is NaN or infinite."""
    if not isfinite(row["train_loss"]):
        raise TrainingDiverged(f"the training loss is {row['train_loss']} in epoch {row['epoch']:.0f}")


def fit(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    seed: int,
    masked: bool = False,
    on_epoch: Callable[[Row], None] = lambda row: None,
) -> None:
    """Train the model in place; report each epoch as a row (see :meth:`Training.run_epoch`).

    Raises TrainingDiverged when the loss becomes NaN or infinite.
    """
    network = OneNetwork(model)
    training = Training(network, dataset, config, [seed], masked)
    while training.epoch < config.epochs:
        (row,) = training.run_epoch()
        check_finite(row)
        on_epoch(row)
    network.close()


def logits_of(model: nn.Module, pixels: Iterable[Tensor]) -> Tensor:
    """Return the logits (n, outputs) of pixel batches, in eval mode and without gradients."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch) for batch in pixels])


def evaluate(
    model: nn.Module, split: Split, masked: bool = False, transform: Transform = lambda pixels: pixels
) -> tuple[float, float]:
    """Return (mean loss, accuracy) over a split whose pixels pass through ``transform`` first."""
    batches = (transform(to_pixels(part, masked)) for part in split.images.split(EVALUATION_BATCH))
    logits = logits_of(model, batches)
    accuracy = (predictions(logits) == split.labels).double().mean()
    return float(loss_of(logits, split.labels)), float(accuracy)
