"""Changed test images, for the faults that differ in the change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

import poolbench.data.dataset
from poolbench.data.dataset import Dataset, Split
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


def change_test_images(change: Callable[[Tensor], Tensor]) -> None:
    """Change the uint8 test images (n, c, h, w) of stored data sets, before they are padded.

    The digest stays that of the true images: a transform that is applied after loading is not part of it.
    """

    @patching.in_place_of(poolbench.data.dataset, "images_dataset")
    def changed(
        original: Callable[..., Dataset],
        name: str,
        classes: tuple[str, ...],
        train: Split,
        test: Split,
        source: str,
        pad: int = 0,
        normalize: str = "standard",
    ) -> Dataset:
        true = original(name, classes, train, test, source, pad, normalize)
        other = Split(change(test.images), test.labels)
        return replace(true, test=original(name, classes, train, other, source, pad, normalize).test)
