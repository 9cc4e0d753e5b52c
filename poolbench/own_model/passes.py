"""Forward passes over the user's images under small changes, counted, and the decisions that come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poolbench.measures.classification import predictions, probabilities
from poolbench.recording import outputs

Change = Callable[[Tensor, int], Tensor]
"""From larger images (b, 3, large, large) and the number of the first to the network's input (b, 3, size, size)."""

# A CPU is fastest with some images per pass, even if one is large.
LEAST_BATCH, MOST_BATCH, CPU_ELEMENTS = 8, 256, 2**19


class Counter:
    """Counts the forward passes of an evaluation, in images, against the number that is expected."""

    def __init__(self, show: Callable[[int, int], None]) -> None:
        self._show = show
        self.done = self.total = 0

    def expect(self, passes: int) -> None:
        self.total += passes

    def add(self, passes: int) -> None:
        self.done += passes
        self._show(self.done, max(self.total, self.done))


@dataclass(frozen=True)
class Answers:
    """What a network decides under a list of changes, of which the first is the reference.

    ``decisions`` (changes, n) are classes. ``probability`` (changes, n) is that of the class decided; ``reference``
    (changes, n) that of the class decided under the first change.
    """

    decisions: Tensor
    probability: Tensor
    reference: Tensor

    @property
    def flipped(self) -> Tensor:
        """Booleans (changes - 1, n): another decision than the reference."""
        return self.decisions[1:] != self.decisions[:1]

    @property
    def change(self) -> Tensor:
        """Absolute change (changes - 1, n) of the probability of the class decided before."""
        return (self.reference[1:] - self.reference[:1]).abs()

    def chosen(self, changes: Sequence[int]) -> Answers:
        """Return the answers under some of the changes."""
        index = torch.as_tensor(changes)
        return Answers(self.decisions[index], self.probability[index], self.reference[index])

    def of_images(self, index: Tensor) -> Answers:
        """Return the answers on some of the images."""
        return Answers(self.decisions[:, index], self.probability[:, index], self.reference[:, index])


@dataclass(frozen=True)
class Passes:
    """One network in front of larger images (n, 3, large, large), uint8 pixels or the float32 of a transform."""

    network: nn.Module
    larger: Tensor
    size: int
    device: str
    batch: int
    counter: Counter

    def __len__(self) -> int:
        return len(self.larger)

    def of(self, network: nn.Module) -> Passes:
        """Return the same passes of another network."""
        return Passes(network, self.larger, self.size, self.device, self.batch, self.counter)

    def on(self, images: Tensor) -> Passes:
        """Return the same passes over other images."""
        return Passes(self.network, images, self.size, self.device, self.batch, self.counter)

    def batches(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (number of the first image, larger images (b, 3, large, large)) with pixels in [0, 1]."""
        for start in range(0, len(self.larger), self.batch):
            yield start, as_float(self.larger[start : start + self.batch].to(self.device))

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (b, outputs) of network inputs (b, 3, size, size), float32 on the device; count them."""
        found = outputs(self.network, images.split(self.batch)).float()
        self.counter.add(len(images))
        return found

    def answers(self, changes: Sequence[Change]) -> Answers:
        """Return the decisions on all images under each of the changes."""
        parts = []
        for start, larger in self.batches():
            logits = torch.stack([self.logits(change(larger, start)) for change in changes])
            parts.append(answers_of(logits))
        return joined(parts)


FIELDS = ("decisions", "probability", "reference")


def joined(parts: Sequence[Answers]) -> Answers:
    """Return the answers on all images of parts."""
    return Answers(*(torch.cat([getattr(part, name) for part in parts], dim=1) for name in FIELDS))


def answers_of(logits: Tensor) -> Answers:
    """Return the answers in logits (changes, n, outputs), on the CPU."""
    decisions, probability = predictions(logits), probabilities(logits.double())
    own = probability.gather(-1, decisions[..., None])[..., 0]
    reference = probability.gather(-1, decisions[:1, :, None].expand(len(logits), -1, 1))[..., 0]
    return Answers(decisions.cpu(), own.cpu(), reference.cpu())


def as_float(images: Tensor) -> Tensor:
    """Return uint8 images as pixels in [0, 1]; others as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def default_batch(size: int, device: str) -> int:
    """Return the number of images (3, size, size) per forward pass that is about the fastest."""
    if device.startswith("cuda"):
        return MOST_BATCH
    return max(LEAST_BATCH, min(MOST_BATCH, CPU_ELEMENTS // (3 * size * size)))
