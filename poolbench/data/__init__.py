"""Data sets: drawn shapes, embedded samples of real images, torchvision sets and image folders."""

from __future__ import annotations

from functools import lru_cache

from poolbench.core import DataLocation, MissingData, Scalar, UsageError
from poolbench.data.dataset import Dataset, Split, TrainSource, images_dataset, padded
from poolbench.registry import datasets

__all__ = ["DataLocation", "Dataset", "Split", "TrainSource", "images_dataset", "load_dataset", "padded"]


def load_dataset(name: str, location: DataLocation, device: str = "cpu", **options: Scalar) -> Dataset:
    """Return the data set of that name on the device, read once per process.

    Raises MissingData where it is neither on disk nor reachable, UsageError where its files are broken.
    """
    found = _load(name, location, device, tuple(sorted(options.items())))
    if isinstance(found, Exception):
        raise found
    return found


@lru_cache(maxsize=8)
def _load(
    name: str, location: DataLocation, device: str, options: tuple[tuple[str, Scalar], ...]
) -> Dataset | MissingData | UsageError:
    try:
        dataset = datasets.get(name)(location, device, **dict(options))
    except (MissingData, UsageError) as problem:
        # Kept as well: a hundred cells must not wait for the same dead network one after another.
        return problem
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        return UsageError(f"data set '{name}' does not fit this task: it has no option {', '.join(dict(options))}")
    assert isinstance(dataset, Dataset)
    return dataset
