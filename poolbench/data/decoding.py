"""One picture file of the user's as an upright RGB image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from poolbench.core import UsageError


def decoded_image(path: Path) -> tuple[Any, bytes]:
    """Return an upright RGB image of PIL and the content of its file; raise UsageError if it cannot be decoded."""
    from PIL import Image, ImageOps

    try:
        content = path.read_bytes()
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if "transparency" in upright.info or upright.mode in ("LA", "PA", "RGBA"):
                # Colours below transparent pixels are arbitrary.
                opaque = Image.new("RGBA", upright.size, "black")
                upright = Image.alpha_composite(opaque, upright.convert("RGBA"))
            if upright.mode.startswith("I;16"):
                # PIL would cut off everything above 255.
                upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
            return upright.convert("RGB"), content
    # PIL's decoders raise SyntaxError for a broken PNG, ValueError, EOFError or OSError for others.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"'{path}' is damaged or not an image ({reason}); replace or remove it") from error
