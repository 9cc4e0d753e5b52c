"""Data sets: drawn shapes, embedded samples of real images, torchvision sets and image folders."""

from __future__ import annotations

from functools import lru_cache

from poolbench.core import Component, DataLocation, MissingData, Scalar, UsageError
from poolbench.data.dataset import Dataset, Split, TrainSource, images_dataset, to_pixels
from poolbench.registry import datasets

__all__ = ["DataLocation", "Dataset", "Split", "TrainSource", "images_dataset", "load_dataset", "to_pixels"]


def load_dataset(dataset: str | Component, location: DataLocation, device: str = "cpu", **options: Scalar) -> Dataset:
    """Return a registered data set on the device. It is read once per process.

    Raises MissingData where it is neither on disk nor reachable, UsageError for unknown names or options and for
    damaged files.
    """
    component = dataset if isinstance(dataset, Component) else datasets.resolve(dataset, options)
    loaded = _load(component, location, device)
    if isinstance(loaded, Exception):
        raise loaded
    return loaded


@lru_cache(maxsize=8)
def _load(component: Component, location: DataLocation, device: str) -> Dataset | MissingData | UsageError:
    try:
        dataset = datasets.get(component.name)(location, device, **component.options)
    except (MissingData, UsageError) as problem:
        # Cached too: a hundred cells must not wait for the same unreachable server one after another.
        return problem
    if not isinstance(dataset, Dataset):
        raise TypeError(f"data set '{component.name}' returned a {type(dataset).__name__}, not a Dataset")
    return dataset
