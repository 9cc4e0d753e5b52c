"""The data sets ``mnist``, ``fashion_mnist`` and ``cifar10``, from torchvision's files or image folders.

Below the data folder each may lie as torchvision stores it (``MNIST/raw``, ``FashionMNIST/raw``,
``cifar-10-batches-py``) or as pictures in ``<name>/train/CLASS/`` and ``<name>/test/CLASS/``.
"""

from __future__ import annotations

import hashlib
import http.client
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from poolbench.core import DataLocation, MissingData, UsageError
from poolbench.data.dataset import Dataset, Split, images_dataset
from poolbench.data.decoding import decoded_image, named_folders, picture_files
from poolbench.registry import datasets

DIGITS = tuple("0123456789")
GARMENTS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SUFFIXES = (".png", ".jpg", ".jpeg")
CACHE_FORMAT = 2  # raise it when decoding changes, so that old caches are not read

_IDX_FILES = tuple(
    f"{part}-{content}-ubyte" for part in ("train", "t10k") for content in ("images-idx3", "labels-idx1")
)
_CIFAR10_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")


@dataclass(frozen=True)
class _Source:
    """Where a data set lies: its own name, torchvision's class and files, and what is in them."""

    name: str
    torchvision_name: str
    subfolder: str
    files: tuple[str, ...]
    classes: tuple[str, ...]
    channels: int


_MNIST = _Source("mnist", "MNIST", "MNIST/raw", _IDX_FILES, DIGITS, 1)
_FASHION_MNIST = _Source("fashion_mnist", "FashionMNIST", "FashionMNIST/raw", _IDX_FILES, GARMENTS, 1)
_CIFAR10 = _Source("cifar10", "CIFAR10", "cifar-10-batches-py", _CIFAR10_FILES, CIFAR10_CLASSES, 3)


@datasets.register("mnist")
def mnist(
    location: DataLocation, device: str, pad: int = 0, normalize: Literal["standard", "unit"] = "standard"
) -> Dataset:
    """Handwritten digits, gray 28x28, 60,000 + 10,000 images (LeCun et al. 1998)."""
    return _load(_MNIST, location, device, pad, normalize)


@datasets.register("fashion_mnist")
def fashion_mnist(
    location: DataLocation, device: str, pad: int = 0, normalize: Literal["standard", "unit"] = "standard"
) -> Dataset:
    """Garments, gray 28x28, 60,000 + 10,000 images (Xiao et al. 2017)."""
    return _load(_FASHION_MNIST, location, device, pad, normalize)


@datasets.register("cifar10")
def cifar10(
    location: DataLocation, device: str, pad: int = 0, normalize: Literal["standard", "unit"] = "standard"
) -> Dataset:
    """Photographs of animals and vehicles, RGB 32x32, 50,000 + 10,000 images (Krizhevsky 2009)."""
    return _load(_CIFAR10, location, device, pad, normalize)


def _load(source: _Source, location: DataLocation, device: str, pad: int, normalize: str) -> Dataset:
    folder = Path(location.folder)
    pictures = folder / source.name
    absent = [name for name in source.files if not (folder / source.subfolder / name).is_file()]
    if absent and (pictures / "train").is_dir():
        classes, train, test = _read_image_folder(pictures, source.channels)
        origin = f"image folder {pictures}"
    else:
        if absent:
            _fetch(source, location, absent)
        classes = source.classes
        train, test = (_read_torchvision(source, folder, train) for train in (True, False))
        if train.images.shape[1:] != test.images.shape[1:]:
            raise _damaged(source, folder, "train and test images differ in size")
        origin = f"torchvision files {folder / source.subfolder}"
    return images_dataset(source.name, classes, train.to(device), test.to(device), origin, pad, normalize)


def _fetch(source: _Source, location: DataLocation, absent: Sequence[str]) -> None:
    """Download the data set through torchvision, which checks MD5 sums; raise MissingData where that fails."""
    if not location.download:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise MissingData(
            f"{source.name} is not in {location.folder} (no {source.subfolder}/{absent[0]}{more}): fetch it with "
            f"--download, or put pictures into {source.name}/train/CLASS/ and {source.name}/test/CLASS/ there"
        )
    import torchvision  # here, because the import takes seconds

    try:
        getattr(torchvision.datasets, source.torchvision_name)(location.folder, train=True, download=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split())
        raise MissingData(f"{source.name} could not be downloaded to {location.folder}: {reason}") from error


def _read_torchvision(source: _Source, folder: Path, train: bool) -> Split:
    """Return one split as torchvision reads it; raise UsageError where a file is damaged."""
    import torchvision  # here, because the import takes seconds

    try:
        stored = getattr(torchvision.datasets, source.torchvision_name)(str(folder), train=train)
        images, labels = torch.as_tensor(stored.data), torch.as_tensor(stored.targets, dtype=torch.int64)
    except Exception as error:  # a damaged file can make the parsers raise anything
        raise _damaged(source, folder, " ".join(str(error).split()) or type(error).__name__) from error
    part = "train" if train else "test"
    if len(images) != len(labels) or not len(images):
        raise _damaged(source, folder, f"{len(images)} {part} images with {len(labels)} labels")
    if not 0 <= int(labels.min()) <= int(labels.max()) < len(source.classes):
        raise _damaged(source, folder, f"{part} labels outside 0..{len(source.classes) - 1}")
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
    return Split(images.contiguous(), labels)


def _damaged(source: _Source, folder: Path, reason: str) -> UsageError:
    return UsageError(
        f"the files of {source.name} in {folder / source.subfolder} are damaged ({reason}): "
        "delete that folder and fetch it again with --download"
    )


@dataclass(frozen=True)
class Picture:
    """A file of an image folder: where it lies and what identifies its content without reading it."""

    path: Path
    label: int
    size: int
    modified: int


def _read_image_folder(root: Path, channels: int) -> tuple[tuple[str, ...], Split, Split]:
    """Return class names (sorted folder names), train and test split of ROOT/{train,test}/CLASS/picture."""
    classes = class_folders(root / "train")
    test_classes = class_folders(root / "test")
    if classes != test_classes or not classes:
        odd = ", ".join(sorted(set(classes) ^ set(test_classes))) or "no classes at all"
        raise UsageError(
            f"train and test in {root} need the same classes, one folder each, "
            f"but differ in {odd}: add the missing folders"
        )
    train, test = (pictures_of(root / part, classes) for part in ("train", "test"))
    cache = root.with_name(f"{root.name}.cache.pt")
    fingerprint = _fingerprint(root, channels, [*train, *test])
    images = _read_cache(cache, fingerprint)
    if images is None:
        images = _decode([*train, *test], channels)
        _write_cache(cache, fingerprint, images)
    labels = torch.tensor([picture.label for picture in (*train, *test)])
    n = len(train)
    return classes, Split(images[:n], labels[:n]), Split(images[n:], labels[n:])


def class_folders(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the folders in a folder; raise UsageError if it is missing."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is missing: an image folder has train/CLASS/ and test/CLASS/")
    return tuple(named_folders(folder))


def pictures_of(folder: Path, classes: Sequence[str]) -> list[Picture]:
    """Return the pictures of each class's folder, sorted by name; raise UsageError for a folder without any."""
    pictures = []
    for label, name in enumerate(classes):
        found = picture_files(folder / name, SUFFIXES)
        if not found:
            raise UsageError(f"{folder / name} holds no pictures ({', '.join(SUFFIXES)}): add some or remove the class")
        for path in found:
            facts = path.stat()
            pictures.append(Picture(path, label, facts.st_size, facts.st_mtime_ns))
    return pictures


def _fingerprint(root: Path, channels: int, pictures: Sequence[Picture]) -> str:
    summary = hashlib.sha256(f"{CACHE_FORMAT}/{channels}".encode())
    for picture in pictures:
        name = picture.path.relative_to(root).as_posix()
        summary.update(f"\n{name}/{picture.size}/{picture.modified}".encode())
    return summary.hexdigest()


def _decode(pictures: Sequence[Picture], channels: int) -> torch.Tensor:
    """Return the pictures as uint8 (n, channels, h, w)."""
    # PIL and not torchvision.io: PIL refuses a truncated JPEG, the other fills it with gray.
    mode = "L" if channels == 1 else "RGB"

    def decode(picture: Picture) -> np.ndarray[Any, np.dtype[np.uint8]]:
        image, _ = decoded_image(picture.path)
        return np.asarray(image.convert(mode))

    first = decode(pictures[0])
    images = np.empty((len(pictures), *first.shape), dtype=np.uint8)

    # One thread: for pictures this small PIL holds the interpreter's lock nearly all the time.
    for index, picture in enumerate(pictures):
        image = decode(picture)
        if image.shape != first.shape:
            raise UsageError(
                f"all pictures of a data set have one size, but {pictures[0].path} is {_size(first)} and "
                f"{picture.path} is {_size(image)}: resize them"
            )
        images[index] = image
    decoded = torch.from_numpy(images)
    decoded = decoded.unsqueeze(1) if channels == 1 else decoded.permute(0, 3, 1, 2)
    return decoded.contiguous()


def _size(image: np.ndarray[Any, Any]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _read_cache(cache: Path, fingerprint: str) -> torch.Tensor | None:
    """Return the decoded pictures, or None where the cache is absent, stale or unreadable."""
    try:
        stored = torch.load(cache, weights_only=True)
        images: torch.Tensor = stored["images"]
        return images if stored["fingerprint"] == fingerprint else None
    except Exception:  # an unreadable cache is written again
        return None


def _write_cache(cache: Path, fingerprint: str, images: torch.Tensor) -> None:
    """Write the cache aside and rename it, so that no process reads a partial file; ignore failures."""
    temporary = cache.with_name(f".{cache.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            torch.save({"fingerprint": fingerprint, "images": images}, file)
        temporary.replace(cache)
    except (OSError, RuntimeError):  # RuntimeError is what torch.save makes of a full disk
        pass
    finally:
        with suppress(OSError):  # renamed if all went well
            temporary.unlink()
