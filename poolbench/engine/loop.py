"""The epoch loop, for one network or for several stacked ones. It never waits for the device within an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from poolbench.core import TrainConfig, UsageError, derive_seed
from poolbench.data import Dataset, to_pixels
from poolbench.data.augment import augment, draw_augmentations
from poolbench.engine.networks import Networks, OneNetwork
from poolbench.engine.optimisation import build_optimizer, learning_rate
from poolbench.measures.classification import predictions

Row = dict[str, float]


class TrainingDiverged(RuntimeError):
    """The training loss is NaN or infinite."""


class Training:
    """A training in progress: call ``run_epoch`` until ``epoch`` reaches ``config.epochs``.

    The order of batches and the augmentation of each network come from random streams derived from its seed. Random
    layers (dropout, stochastic pools) draw from one stream, derived from the first seed. The global random state is
    restored after each epoch. Raises UsageError for bfloat16 on a GPU without it, and for more training images than
    there are.
    """

    def __init__(self, networks: Networks, dataset: Dataset, config: TrainConfig, seeds: Sequence[int]) -> None:
        self.networks, self.dataset, self.config = networks, dataset, config
        self.epoch = 0
        self.device = networks.parameters[0].device
        self.optimizer = build_optimizer(config, networks.parameters, networks.exempt_dim)
        self.orders = [torch.Generator().manual_seed(derive_seed(seed, "order of batches")) for seed in seeds]
        self.augmentations = [torch.Generator().manual_seed(derive_seed(seed, "augmentation")) for seed in seeds]
        count = config.train_images
        self.subsets = [dataset.train.subset(count, seed) for seed in seeds] if count else []
        self._noise: list[Tensor] = []
        with self._noise_stream():
            torch.manual_seed(derive_seed(seeds[0], "noise in the network"))
        if config.precision == "bfloat16" and self.device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
            raise UsageError(f"{torch.cuda.get_device_name(self.device)} has no bfloat16; train with precision=float32")

    def run_epoch(self) -> list[Row]:
        """Train one epoch; return one row per network with epoch, train_loss, train_accuracy, val_loss, val_accuracy.

        ``epoch`` counts from 1. ``train_*`` are means over the batches of the epoch, while the weights change;
        ``val_*`` are computed on the test split after the epoch. If one network diverges, its loss is not finite and
        the others are unaffected.
        """
        config, device, size = self.config, self.device, self.config.batch_size
        source = self.dataset.train
        rows_of = [source.draw(order, config.shuffle) for order in self.orders]
        if self.subsets:
            rows_of = [rows[mask[rows[:, 0]]] for rows, mask in zip(rows_of, self.subsets, strict=True)]
        # All draws of an epoch are copied to the device at once, since a copy per batch would stall a GPU.
        samples = torch.stack(rows_of).to(device)
        count = samples.shape[1]
        drawn = [draw_augmentations(config.augment, count, stream) for stream in self.augmentations]
        draws = {kind: torch.stack([draw[kind] for draw in drawn]).to(device) for kind in drawn[0]}
        loss_sum = torch.zeros(len(samples), device=device)
        correct = torch.zeros(len(samples), device=device)
        batches = -(-count // size)
        with self._noise_stream():
            for batch in range(batches):
                part = slice(batch * size, (batch + 1) * size)
                images, labels = source.render(samples[:, part].flatten(0, 1))
                pixels = augment(
                    to_pixels(images, config.mask), {k: v[:, part].flatten(0, 1) for k, v in draws.items()}
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
        evaluated = self.networks.evaluate(self.dataset.test, config.mask)
        for loss, right, (val_loss, val_accuracy) in zip(loss_sum.tolist(), correct.tolist(), evaluated, strict=True):
            row = {"epoch": self.epoch, "train_loss": loss / count, "train_accuracy": right / count}
            rows.append({**row, "val_loss": val_loss, "val_accuracy": val_accuracy})
        return rows

    @contextmanager
    def _noise_stream(self) -> Iterator[None]:
        """Use the stream of random layers as the global random state; restore the global state afterwards."""
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
        """Return the full training state of each network, to resume from: tensors, numbers, lists and dicts."""
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
                # The step count is shared.
                parts = [value] * len(found) if name == "step" else self.networks.split(value)
                for own, part in zip(found, parts, strict=True):
                    own["optimizer"].setdefault(index, {})[name] = part
        return found

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Resume from :meth:`states`, all networks at the same epoch."""
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
    """Raise TrainingDiverged if the training loss of an epoch is NaN or infinite."""
    if not isfinite(row["train_loss"]):
        raise TrainingDiverged(f"the training loss is {row['train_loss']} in epoch {row['epoch']:.0f}")


def fit(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    seed: int,
    on_epoch: Callable[[Row], None] = lambda row: None,
) -> None:
    """Train the model in place; call ``on_epoch`` with the row of each epoch (see :meth:`Training.run_epoch`).

    Raises TrainingDiverged when the loss becomes NaN or infinite.
    """
    network = OneNetwork(model)
    training = Training(network, dataset, config, [seed])
    while training.epoch < config.epochs:
        (row,) = training.run_epoch()
        check_finite(row)
        on_epoch(row)
    network.close()
