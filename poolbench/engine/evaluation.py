"""Loss and accuracy of a network over a split."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.data import Split, to_pixels
from poolbench.measures.classification import predictions
from poolbench.recording import outputs

EVALUATION_BATCH = 500

Transform = Callable[[Tensor], Tensor]


def loss_of(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean loss: cross entropy of logits (b, c), binary cross entropy of one logit (b, 1).

    ``smoothing`` of every target's mass is spread evenly over all classes (Szegedy et al. 2016).
    """
    if logits.shape[1] == 1:
        targets = labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits[:, 0], targets)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def split_logits(
    model: nn.Module, split: Split, mask: str = "none", transform: Transform = lambda pixels: pixels
) -> Tensor:
    """Return the logits (n, outputs) of a split whose pixels are masked, then passed through ``transform``."""
    return outputs(model, (transform(to_pixels(part, mask)) for part in split.images.split(EVALUATION_BATCH)))


def evaluate(
    model: nn.Module, split: Split, mask: str = "none", transform: Transform = lambda pixels: pixels
) -> tuple[float, float]:
    """Return (mean loss, accuracy) over a split whose pixels are masked, then passed through ``transform``."""
    logits = split_logits(model, split, mask, transform)
    accuracy = (predictions(logits) == split.labels).double().mean()
    return float(loss_of(logits, split.labels)), float(accuracy)
