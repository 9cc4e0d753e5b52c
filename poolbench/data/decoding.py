"""Picture files of the user's: which a folder holds, and one of them as an upright RGB image."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poolbench.core import UsageError


def named_folders(folder: Path) -> list[str]:
    """Return the sorted names of the visible folders in a folder; raise UsageError for a name that is not Unicode."""
    return [path.name for path in _visible(folder) if path.is_dir()]


def picture_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the visible files with these suffixes in a folder, sorted; raise UsageError as :func:`named_folders`."""
    return [path for path in _visible(folder) if path.suffix.lower() in suffixes and path.is_file()]


def _visible(folder: Path) -> list[Path]:
    paths = sorted(Path(entry.path) for entry in os.scandir(folder) if entry.name[0] != ".")
    for path in paths:
        if any("\ud800" <= character <= "\udfff" for character in path.name):
            # It could be in no table, figure or page.
            raise UsageError(f"the name of '{path}' is not Unicode; rename it")
    return paths


def decoded_image(path: Path) -> tuple[Any, bytes]:
    """Return an upright RGB image of PIL and the content of its file; raise UsageError if it cannot be decoded.

    16 bits per channel are scaled to 8. Pictures of more pixels than PIL takes for harmless (89 million) are refused.
    """
    from PIL import Image

    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            # Of odd metadata, which change no pixel.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _upright(image), content
    # A damaged file can make PIL's decoders raise anything.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"'{path}' is damaged or not an image ({reason}); replace or remove it") from error


def _upright(image: Any) -> Any:
    """Return an opened image, turned as its EXIF data say, in RGB on black; raise ValueError for unknown ranges."""
    from PIL import Image, ImageOps

    source = image.format
    upright = ImageOps.exif_transpose(image)
    if min(upright.size) < 1:
        raise ValueError("it has no pixels")
    if "transparency" in upright.info or upright.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
        # Colours below transparent pixels are arbitrary.
        opaque = Image.new("RGBA", upright.size, "black")
        upright = Image.alpha_composite(opaque, upright.convert("RGBA"))
    if upright.mode.startswith("I;16") or (upright.mode == "I" and source in ("PNG", "PPM")):
        # PIL would cut off everything above 255. It reads 16-bit files of some formats as 32-bit integers.
        upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
    if upright.mode in ("I", "F"):
        raise ValueError("32 bits per pixel, of an unknown range; convert it to 8 or 16 bits")
    return upright.convert("RGB")
