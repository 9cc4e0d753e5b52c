"""Data sets as tensors on one device, without loader processes or per-image Python."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from poolbench.core import UsageError, derive_seed
from poolbench.geometry import disc_mask


def to_pixels(images: Tensor, mask: str = "none") -> Tensor:
    """Return uint8 images (b, c, h, w) as floats in [0, 1]; mask "disc" blackens all outside the inscribed circle.

    Channels last, since convolutions with few channels run up to four times faster so on a CPU.
    """
    pixels = images.to(torch.float32, memory_format=torch.channels_last) / 255
    if mask == "disc":
        pixels = pixels * disc_mask((images.shape[-2], images.shape[-1]), images.device)
    return pixels


class TrainSource(Protocol):
    """A source of training samples: a stored split, or a stream that generates new ones every epoch.

    ``draw`` describes the samples of an epoch, which are copied to the device once; ``render`` makes the images of a
    batch on the device, for one network or for several with different orders.
    """

    def __len__(self) -> int:
        """Return the number of samples of one epoch."""
        ...

    def draw(self, generator: torch.Generator, shuffle: bool) -> Tensor:
        """Return the samples of one epoch as int64 rows (n, k) on the CPU, in training order.

        ``generator`` is a CPU generator, so that the samples are the same on every device.
        """
        ...

    def render(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return uint8 images (b, c, h, w) and labels (b,) of rows (b, k) on the device of the source."""
        ...

    def held_out(self, fraction: float, seed: int) -> tuple[TrainSource, Split]:
        """Return a training source and a validation split without common samples."""
        ...

    def subset(self, count: int, seed: int) -> Tensor:
        """Return the mask (n,) of ``count`` samples chosen by ``seed``; row k of an unshuffled draw is sample k.

        Raises UsageError for more samples than there are, and if there are no stored ones.
        """
        ...


@dataclass(frozen=True)
class Split:
    """Images (n, c, h, w) as uint8 and labels (n,) as int64, both on one device."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise ValueError(f"images are uint8 (n, c, h, w), got {self.images.dtype} {tuple(self.images.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels are int64 ({len(self.images)},), got {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, generator: torch.Generator, shuffle: bool) -> Tensor:
        """Return the indices (n, 1) of all samples, permuted where ``shuffle``."""
        order = torch.randperm(len(self), generator=generator) if shuffle else torch.arange(len(self))
        return order[:, None]

    def render(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images (b, c, h, w) and labels (b,) of indices (b, 1)."""
        chosen = rows[:, 0]
        return self.images[chosen], self.labels[chosen]

    def held_out(self, fraction: float, seed: int) -> tuple[Split, Split]:
        """Return (train, validation); validation takes ``fraction`` of every class, chosen by ``seed``."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "validation split"))
        validation = torch.zeros(len(self), dtype=torch.bool)
        for members in self._shuffled_classes(generator):
            validation[members[: max(1, round(fraction * len(members)))]] = True
        validation = validation.to(self.labels.device)
        return self.take(~validation), self.take(validation)

    def subset(self, count: int, seed: int) -> Tensor:
        """Return the mask (n,), on the CPU, of ``count`` samples chosen by ``seed``, balanced over the classes.

        The samples of a smaller count are among those of a larger one. Raises UsageError for more than there are.
        """
        if not 0 < count <= len(self):
            raise UsageError(f"train_images is 1 to {len(self)}, or 0 for all, got {count}")
        generator = torch.Generator().manual_seed(derive_seed(seed, "training images"))
        classes = self._shuffled_classes(generator)
        # One of each class in turn, so that a count that the classes do not divide is balanced to one image, too.
        turns = torch.cat([torch.arange(len(members)) for members in classes])
        chosen = torch.cat(classes)[turns.argsort(stable=True)[:count]]
        mask = torch.zeros(len(self), dtype=torch.bool)
        mask[chosen] = True
        return mask

    def _shuffled_classes(self, generator: torch.Generator) -> list[Tensor]:
        """Return the indices of each class's samples in random order, on the CPU."""
        labels = self.labels.cpu()
        found = [(labels == label).nonzero().flatten() for label in labels.unique()]
        return [members[torch.randperm(len(members), generator=generator)] for members in found]

    def sample(self, count: int) -> Split:
        """Return ``count`` samples in a random order that never changes; all of them where there are fewer."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        return self.take(order[:count].to(self.labels.device))

    def take(self, chosen: Tensor) -> Split:
        """Return the samples selected by a boolean mask (n,) or an index tensor."""
        return Split(self.images[chosen], self.labels[chosen])

    def to(self, device: str) -> Split:
        return Split(self.images.to(device), self.labels.to(device))

    def digest(self) -> str:
        """Return the sha256 of shape, pixels and labels."""
        summary = hashlib.sha256(str(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.labels):
            summary.update(tensor.cpu().contiguous().numpy().tobytes())
        return summary.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A training source and a test split.

    ``mean`` and ``std`` (per channel, for pixels in [0, 1]) are what networks normalise with. ``source`` says where
    the data came from, ``digest`` identifies it.
    """

    name: str
    classes: tuple[str, ...]
    train: TrainSource
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    digest: str

    @property
    def in_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.test.images.shape[1:]
        return channels, height, width

    def for_tuning(self, fraction: float = 0.2, seed: int = 0) -> Dataset:
        """Return the data set with a held-out part of the training data as its test split."""
        train, validation = self.train.held_out(fraction, seed)
        return replace(self, train=train, test=validation)


def images_dataset(
    name: str,
    classes: tuple[str, ...],
    train: Split,
    test: Split,
    source: str,
    pad: int = 0,
    normalize: str = "standard",
) -> Dataset:
    """Return a stored data set with ``pad`` black pixels added on every side (28 px halve twice, 32 px five times).

    ``normalize``: "standard" makes networks subtract the mean and divide by the standard deviation of the training
    pixels, "unit" leaves pixels in [0, 1].
    """
    if pad < 0:
        raise UsageError(f"pad is at least 0 pixels, got {pad}")
    if pad:
        train, test = (Split(F.pad(split.images, (pad,) * 4), split.labels) for split in (train, test))
    channels = train.images.shape[1]
    mean, std = ((0.0,) * channels, (1.0,) * channels) if normalize == "unit" else _moments(train.images)
    digest = hashlib.sha256((train.digest() + test.digest()).encode()).hexdigest()
    return Dataset(name, classes, train, test, mean, std, source, digest)


def _moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of uint8 images (n, c, h, w) scaled to [0, 1]."""
    # A histogram gives exact moments of 8-bit pixels without a float copy of the whole split.
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.transpose(0, 1).flatten(1):
        share = torch.bincount(channel.flatten().cpu(), minlength=256).double() / channel.numel()
        mean.append(float(share @ values))
        std.append(float((share @ values.square() - mean[-1] ** 2).clamp(min=0).sqrt()))
    return tuple(mean), tuple(std)
