"""The photograph that pictures start from: one of the user's, or the one that is part of the package."""

from __future__ import annotations

import hashlib
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from poolbench.core import UsageError
from poolbench.data.decoding import decoded_image

SAMPLE = "cat.jpg"
SHA256 = "56b59bd857ccdbd305a51b03c387a475c28ed01ffb80311e086746296b176bfd"
LEAST = 48
"""Shortest side of a photograph, in px: of smaller ones nothing is left to compare inside the border."""
LONGEST = 4
"""Longer side of a photograph, at most, as a multiple of its shorter side: strips are illegible in a row of panels."""


def read_photograph(path: Path | None, size: int) -> Tensor:
    """Return a photograph (3, h, w) with values in [0, 1], its shorter side ``size`` px or less; None is the sample.

    Larger photographs are scaled down (Lanczos), smaller ones stay as they are. They are converted to RGB
    (transparency on black) and turned as their EXIF data say. Raises UsageError for a file that is missing, no
    picture, too small (``LEAST``), or too long (``LONGEST``).
    """
    if path is None:
        return _sample(size)
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"'{path}' {reason}; give a PNG or JPEG file, or leave it out for the sample photograph")
    return _read(path, size)


def _sample(size: int) -> Tensor:
    """Return the photograph of the package; raise UsageError if its file is damaged."""
    with as_file(files("poolbench.inspect") / "embedded" / SAMPLE) as path:
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
            raise UsageError(f"{SAMPLE} of the installed package is missing or damaged: reinstall poolbench")
        return _read(path, size)


def _read(path: Path, size: int) -> Tensor:
    from PIL import Image

    image, _ = decoded_image(path)
    width, height = image.size
    if min(width, height) < LEAST:
        raise UsageError(f"'{path}' is {width}x{height} px; give a picture of at least {LEAST} px on its shorter side")
    if max(width, height) > LONGEST * min(width, height):
        raise UsageError(
            f"'{path}' is {width}x{height} px; crop it so that its longer side is at most {LONGEST} times the other"
        )
    if min(width, height) > size:
        scale = size / min(width, height)
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).double() / 255


def grey(photograph: Tensor) -> Tensor:
    """Return the brightness (h, w) of a photograph (3, h, w): 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)."""
    return torch.einsum("chw,c->hw", photograph, photograph.new_tensor((0.299, 0.587, 0.114)))
