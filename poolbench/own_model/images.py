"""The user's images: a folder of class folders, or a folder of images without labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolbench.core import UsageError, derive_seed
from poolbench.data.decoding import decoded_image, named_folders, picture_files
from poolbench.own_model.model import Preprocessing
from poolbench.plugins import import_code

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
COMPARED_IMAGES = 500
"""Images of the measures that are not made on all images: other changes than steps, attribution, rotation."""
LONGEST = 8
"""Longer side of an image that is resized, at most, as a multiple of its shorter side."""
Transform = Callable[[Any], Tensor]
Index = np.ndarray[Any, np.dtype[np.int64]]
Labels = Index | None


@dataclass(frozen=True)
class Listing:
    """The files of a folder, in order of their names; ``labels`` (n,) are indices of ``classes``, None without."""

    folder: Path
    files: tuple[Path, ...]
    classes: tuple[str, ...]
    labels: Labels


@dataclass(frozen=True)
class Images:
    """Images that are larger than the network's input, so that a crop window can move in them.

    ``larger`` (n, 3, large, large): the image with its shorter side resized to ``large``, cropped at its centre.
    ``compared`` (m,): indices of up to ``COMPARED_IMAGES`` images, balanced over the classes. ``rescaled``: {change of
    ``large`` in px: crops (m, 3, size, size)} of these images, resized to one pixel less and more. Pixels are uint8, or
    the float32 of the user's transform, which has no ``rescaled``. ``enlarged`` counts the images whose shorter side is
    below ``large``.
    """

    listing: Listing
    larger: Tensor
    compared: Index
    rescaled: dict[int, Tensor]
    enlarged: int
    digest: str

    def __len__(self) -> int:
        return len(self.larger)


def larger_side(size: int) -> int:
    """Return the side of the larger image for a crop of ``size`` px: 8/7 of it (256 for 224), at least 2 px more."""
    return max(round(8 / 7 * size), size + 2)


def list_images(folder: Path, limit: int | None = None) -> Listing:
    """Return the images of a folder; with class folders their names are the classes, sorted.

    ``limit`` takes a subset with as equal a number of images per class as there are, drawn with a fixed seed. Raises
    UsageError for a folder that is absent, has no images, has a single class, or has images both in class folders and
    beside them.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder '{folder}'; give a folder of images or of class folders with --data")
    classes = named_folders(folder)
    groups = [picture_files(folder / name, SUFFIXES) for name in classes]
    classes = [name for name, group in zip(classes, groups, strict=True) if group]
    groups = [group for group in groups if group]
    loose = picture_files(folder, SUFFIXES)
    if groups and loose:
        raise UsageError(
            f"'{folder}' has images beside its class folders, like '{loose[0].name}'; move them into a class folder"
        )
    if not groups and not loose:
        raise UsageError(f"'{folder}' holds no images ({', '.join(SUFFIXES)}), nor do its folders; give another --data")
    if len(groups) == 1:
        raise UsageError(
            f"'{folder}' has images of one class only, '{classes[0]}'; add folders of other classes, or give "
            f"--data '{folder / classes[0]}' for images without labels"
        )
    files = [path for group in groups or [loose] for path in group]
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups]) if groups else None
    if limit is not None and limit < len(classes):
        raise UsageError(f"--limit {limit} is less than an image for each of the {len(classes)} classes; raise it")
    chosen = balanced_subset(labels, len(files) if limit is None else limit, len(files), "limit")
    kept = None if labels is None else labels[chosen]
    return Listing(folder, tuple(files[index] for index in chosen), tuple(classes), kept)


def balanced_subset(labels: Labels, count: int, total: int, purpose: str) -> Index:
    """Return the sorted indices of ``count`` of ``total`` images, all if there are no more, in turn from each class.

    ``labels`` (total,) are the classes, None for one. Drawn with a fixed seed for each purpose; smaller subsets are
    part of larger ones.
    """
    order = np.random.default_rng(derive_seed(0, purpose)).permutation(total)
    if labels is not None:
        # The k-th image of every class comes before the (k + 1)-th of any.
        ranks = np.empty(total, dtype=np.int64)
        for label in np.unique(labels):
            members = order[labels[order] == label]
            ranks[members] = np.arange(len(members))
        order = order[np.argsort(ranks[order], kind="stable")]
    return np.sort(order[:count])


def named_transform(spec: str) -> Transform:
    """Return the function that ``file.py:NAME`` or ``package.module:NAME`` names; raise UsageError if there is none."""
    path, _, name = spec.rpartition(":")
    if not path or not name:
        raise UsageError(f"a transform is file.py:NAME or package.module:NAME, got '{spec}'")
    found: Any = getattr(import_code(path), name, None)
    if not callable(found):
        raise UsageError(f"'{path}' has no function '{name}'; give one that maps a PIL image to a tensor (3, h, w)")
    transform: Transform = found
    return transform


def read_images(
    listing: Listing,
    preprocessing: Preprocessing,
    transform: Transform | None,
    show: Callable[[int, int], None],
) -> Images:
    """Read all images of a listing; ``show(done, total)`` is called after each.

    Images are converted to RGB (transparency on black) and turned as their EXIF data say. ``transform`` maps the PIL
    image to the tensor (3, h, w) of the larger image, h and w of ``larger_side`` or more, of which the centre is used.
    Raises UsageError that names the file for an image that cannot be decoded, and for a transform's wrong tensor; also
    for more images than fit into memory.
    """
    size, large = preprocessing.size, larger_side(preprocessing.size)
    count, digest, enlarged = len(listing.files), hashlib.sha256(), 0
    dtype = torch.uint8 if transform is None else torch.float32
    larger = _empty(count, large, dtype)
    steps = (-1, 1) if transform is None else ()
    compared = balanced_subset(listing.labels, COMPARED_IMAGES, count, "compared images")
    rescaled = {step: _empty(len(compared), size, dtype) for step in steps}
    place_of = {int(index): place for place, index in enumerate(compared)}
    for index, path in enumerate(listing.files):
        image, content = decoded_image(path)
        digest.update(os.fsencode(f"{path.relative_to(listing.folder).as_posix()}\n") + content)
        enlarged += min(image.size) < large
        if transform is not None:
            larger[index] = _transformed(transform, image, large, path)
        else:
            larger[index] = _resized(image, large, large, preprocessing.interpolation)
            if index in place_of:
                for step, crops in rescaled.items():
                    crops[place_of[index]] = _resized(image, large + step, size, preprocessing.interpolation)
        show(index + 1, count)
    return Images(listing, larger, compared, rescaled, enlarged, digest.hexdigest()[:16])


def _empty(count: int, side: int, dtype: torch.dtype) -> Tensor:
    """Return room for images (count, 3, side, side); raise UsageError if there is too little memory."""
    try:
        return torch.empty(count, 3, side, side, dtype=dtype)
    except RuntimeError as error:
        gigabytes = count * 3 * side**2 * dtype.itemsize / 1e9
        raise UsageError(
            f"{count:,} images of {side}x{side} px take {gigabytes:,.1f} GB, more than there is; give a smaller "
            "--size, or fewer images (--limit; advise: --images)"
        ) from error


def _resized(image: Any, shorter: int, crop: int, interpolation: str) -> Tensor:
    """Return the centre (3, crop, crop) of an RGB image whose shorter side is resized to ``shorter`` px."""
    from PIL import Image

    if max(image.size) > LONGEST * min(image.size):
        # Of a long image only the centre is used; all of it would be resized to gigabytes.
        margins = [max(0, side - LONGEST * min(image.size)) // 2 for side in image.size]
        image = image.crop((*margins, image.width - margins[0], image.height - margins[1]))
    scale = shorter / min(image.size)
    width, height = (max(shorter, round(side * scale)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling[interpolation.upper()])
    left, top = (width - crop) // 2, (height - crop) // 2
    return torch.from_numpy(np.array(resized.crop((left, top, left + crop, top + crop)))).permute(2, 0, 1)


def _transformed(transform: Transform, image: Any, large: int, path: Path) -> Tensor:
    try:
        found = transform(image)
    except Exception as error:
        raise UsageError(f"the transform fails for '{path}': {type(error).__name__}: {error}; repair it") from error
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if not isinstance(found, Tensor) or found.dim() != 3 or len(found) != 3 or min(found.shape[1:]) < large:
        raise UsageError(
            f"the transform returns {shape} for '{path}', not a tensor (3, h, w) of at least {large} px; let it return "
            "the image before the crop, or give a smaller --size"
        )
    top, left = ((side - large) // 2 for side in found.shape[1:])
    return found[:, top : top + large, left : left + large].float()
