"""The data sets ``mnist_sample`` and ``fashion_mnist_sample``: real images that come with the package.

Each holds 200 training and 100 test images per class, chosen at random from the full training and test
sets; ``embedded/README.md`` names sources and licences, ``benchmarks/make_samples.py`` made the files.
"""

from __future__ import annotations

import hashlib
import io
from importlib.resources import files
from typing import Literal

import numpy as np
import torch

from poolbench.core import DataLocation, UsageError
from poolbench.data.dataset import Dataset, Split, images_dataset
from poolbench.data.images import DIGITS, GARMENTS
from poolbench.registry import datasets

SHA256 = {
    "mnist_sample": "7e1ccfaa9b77efdba7fc3568847a56190f93861c7df4301b6a07ec82a9956966",
    "fashion_mnist_sample": "c3be94e6fb3e9b270d2d4d555b5be6b7bda0d82b198fc05c96386bc3a880f188",
}


@datasets.register("mnist_sample")
def mnist_sample(
    location: DataLocation, device: str, pad: int = 0, normalize: Literal["standard", "unit"] = "standard"
) -> Dataset:
    """2,000 + 1,000 handwritten digits from MNIST, gray 28x28, part of the package."""
    return _load("mnist_sample", DIGITS, device, pad, normalize)


@datasets.register("fashion_mnist_sample")
def fashion_mnist_sample(
    location: DataLocation, device: str, pad: int = 0, normalize: Literal["standard", "unit"] = "standard"
) -> Dataset:
    """2,000 + 1,000 garments from FashionMNIST, gray 28x28, part of the package."""
    return _load("fashion_mnist_sample", GARMENTS, device, pad, normalize)


def _load(name: str, classes: tuple[str, ...], device: str, pad: int, normalize: str) -> Dataset:
    file = files("poolbench.data") / "embedded" / f"{name}.npz"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{name}.npz of the installed package cannot be read ({error}): reinstall poolbench"
        ) from error
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise UsageError(f"{name}.npz of the installed package is damaged: reinstall poolbench")
    with np.load(io.BytesIO(content)) as arrays:
        train, test = (
            Split(
                torch.from_numpy(arrays[f"{part}_images"]).unsqueeze(1),
                torch.from_numpy(arrays[f"{part}_labels"]).to(torch.int64),
            ).to(device)
            for part in ("train", "test")
        )
    return images_dataset(name, classes, train, test, "embedded in the package", pad, normalize)
