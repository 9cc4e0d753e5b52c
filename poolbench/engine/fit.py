"""The training loop: fit one network, evaluate it; no host synchronisation inside an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import TrainConfig, derive_seed
from poolbench.data import Dataset, Split
from poolbench.data.augment import augment, disc_mask
from poolbench.measures.classification import predictions

EVALUATION_BATCH = 500

Transform = Callable[[Tensor], Tensor]


class TrainingDiverged(RuntimeError):
    """The training loss is no longer a number."""


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss: cross entropy of logits (b, c), binary cross entropy of one logit (b, 1)."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def to_pixels(images: Tensor, masked: bool = False) -> Tensor:
    """Return uint8 images (b, c, h, w) as floats in [0, 1]; ``masked`` blackens all outside the disc.

    Channels last: convolutions with few channels run up to four times faster so on a CPU.
    """
    pixels = images.to(torch.float32, memory_format=torch.channels_last) / 255
    if masked:
        pixels = pixels * disc_mask((images.shape[-2], images.shape[-1]), images.device)
    return pixels


def fit(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    seed: int,
    masked: bool = False,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> None:
    """Train the model in place; report each epoch as a row of numbers.

    A row holds ``epoch`` (from 1), ``train_loss`` and ``train_accuracy`` (means over the epoch's
    batches, while the weights move), ``val_loss`` and ``val_accuracy`` (the test split, after the
    epoch). Raises TrainingDiverged when the loss becomes NaN or infinite.
    """
    # A dying network fills with denormal floats, which cost a CPU 20 times the time of zeros.
    torch.set_flush_denormal(True)
    device = next(model.parameters()).device
    order = torch.Generator().manual_seed(derive_seed(seed, "order of batches"))
    augmentation = torch.Generator().manual_seed(derive_seed(seed, "augmentation"))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    spared = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]], lr=config.learning_rate)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # What stays on the global stream: dropout and pools that are random in training.
        torch.manual_seed(derive_seed(seed, "noise in the network"))
        for epoch in range(1, config.epochs + 1):
            model.train()
            loss_sum = torch.zeros((), device=device)
            correct = torch.zeros((), device=device)
            count = 0
            for images, labels in dataset.train.batches(config.batch_size, order, config.shuffle):
                pixels = to_pixels(images, masked)
                logits = model(augment(pixels, config.augmentations, augmentation))
                loss = loss_of(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss_sum += loss.detach() * len(labels)
                correct += (predictions(logits.detach()) == labels).sum()
                count += len(labels)
            row = {"epoch": epoch, "train_loss": float(loss_sum) / count, "train_accuracy": float(correct) / count}
            if not torch.isfinite(loss_sum):
                raise TrainingDiverged(f"the training loss is {row['train_loss']} in epoch {epoch}")
            val_loss, val_accuracy = evaluate(model, dataset.test, masked)
            on_epoch({**row, "val_loss": val_loss, "val_accuracy": val_accuracy})
    model.eval()


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
