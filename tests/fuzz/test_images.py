"""Image files of every kind and damage: the right pixels by another route, or one line that names the file."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from poolbench.core import DataLocation, UsageError
from poolbench.data.decoding import decoded_image
from poolbench.data.folder import image_folder
from poolbench.data.images import fashion_mnist
from poolbench.own_model.images import list_images, read_images
from poolbench.own_model.model import Preprocessing

PLAIN = Preprocessing(14, (0.0,) * 3, (1.0,) * 3)
Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(5)
COLOUR: Array = RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8)
GREY: Array = RNG.integers(0, 256, (20, 24), dtype=np.uint8)
DEEP: Array = RNG.integers(0, 65536, (20, 24), dtype=np.uint16)
ALPHA: Array = np.dstack([COLOUR, GREY])
ON_BLACK = (COLOUR * (GREY[..., None] / 255.0)).round().astype(np.uint8)


def three(grey: Array) -> Array:
    return np.repeat(grey[..., None], 3, axis=2)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def by_opencv(array: Array, suffix: str) -> bytes:
    done, content = cv2.imencode(suffix, array)
    assert done
    return content.tobytes()


def palette() -> bytes:
    return saved(Image.fromarray(COLOUR).quantize(64), "PNG")


def clear_palette() -> tuple[bytes, Array]:
    """A palette image whose colour 0 is transparent."""
    index = GREY % 4
    colours = np.array([[200, 100, 50], [1, 2, 3], [90, 91, 92], [255, 0, 7]], dtype=np.uint8)
    image = Image.frombytes("P", (24, 20), index.tobytes())
    image.putpalette(colours.tobytes())
    expected = colours[index]
    expected[index == 0] = 0
    return saved(image, "PNG", transparency=0), expected


def rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(COLOUR), "PNG", exif=exif)


EXIF = {
    1: COLOUR, 2: COLOUR[:, ::-1], 3: COLOUR[::-1, ::-1], 4: COLOUR[::-1], 5: COLOUR.transpose(1, 0, 2),
    6: np.rot90(COLOUR, -1), 7: np.rot90(COLOUR, 2).transpose(1, 0, 2), 8: np.rot90(COLOUR),
}  # fmt: skip
"""What the orientations of EXIF mean, by their definition."""

RIGHT: dict[str, tuple[str, bytes, Array]] = {
    "png": (".png", by_opencv(COLOUR[..., ::-1], ".png"), COLOUR),
    "grey png": (".png", by_opencv(GREY, ".png"), three(GREY)),
    "16 bit grey png": (".png", by_opencv(DEEP, ".png"), three((DEEP // 257).astype(np.uint8))),
    "16 bit grey tiff": (".tif", by_opencv(DEEP, ".tiff"), three((DEEP // 257).astype(np.uint8))),
    "16 bit grey pgm": (".pgm", by_opencv(DEEP, ".pgm"), three((DEEP // 257).astype(np.uint8))),
    "12 bit pgm": (".pgm", b"P5 2 1 4095\n" + struct.pack(">2H", 4095, 0), np.array([[[255] * 3, [0] * 3]])),
    "16 bit rgb png": (".png", by_opencv(np.dstack([DEEP] * 3), ".png"), three((DEEP >> 8).astype(np.uint8))),
    "alpha png": (".png", saved(Image.fromarray(ALPHA), "PNG"), ON_BLACK),
    "alpha webp": (".webp", saved(Image.fromarray(ALPHA), "WEBP", lossless=True, exact=True), ON_BLACK),
    "grey alpha png": (
        ".png", saved(Image.fromarray(np.dstack([GREY, GREY]), "LA"), "PNG"),
        three((GREY * (GREY / 255.0)).round().astype(np.uint8)),
    ),
    "one bit": (".png", saved(Image.fromarray(GREY > 127), "PNG"), three((GREY > 127).astype(np.uint8) * 255)),
    "palette": (".png", palette(), cv2.imdecode(np.frombuffer(palette(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]),
    "clear palette": (".png", *clear_palette()),
    "cmyk": (
        ".tif", saved(Image.fromarray(np.dstack([255 - COLOUR, np.zeros_like(GREY)]), "CMYK"), "TIFF"), COLOUR,
    ),
    "animated gif": (
        ".gif", saved(Image.fromarray(GREY), "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        three(GREY),
    ),
    "lab": (".tif", saved(Image.new("LAB", (24, 20), (128, 128, 128)), "TIFF"), np.full((20, 24, 3), 119)),
    "bmp": (".bmp", by_opencv(COLOUR[..., ::-1], ".bmp"), COLOUR),
    "ppm": (".ppm", by_opencv(COLOUR[..., ::-1], ".ppm"), COLOUR),
    **{f"exif {turn}": (".png", rotated(turn), expected) for turn, expected in EXIF.items()},
}  # fmt: skip


@pytest.mark.parametrize("kind", RIGHT)
def test_pixels_are_right(kind: str, tmp_path: Path) -> None:
    suffix, content, expected = RIGHT[kind]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    found = np.asarray(decoded_image(path)[0]).astype(int)
    assert found.shape == expected.shape
    tolerance = 1 if "alpha" in kind or "16 bit rgb" in kind else 0  # rounding
    assert np.abs(found - expected.astype(int)).max() <= tolerance


def png(width: int, height: int, depth: int = 8, colour: int = 0, data: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    return saved(Image.fromarray(COLOUR), "JPEG")


WRONG: dict[str, tuple[str, bytes]] = {
    "empty": (".png", b""),
    "text": (".png", b"not an image\n"),
    "html": (".jpg", b"<script>alert(1)</script>"),
    "truncated jpeg": (".jpg", jpeg()[: len(jpeg()) // 2]),
    "truncated png": (".png", by_opencv(COLOUR, ".png")[:-200]),
    "head alone": (".png", png(20, 20)[:33]),
    "bomb": (".png", png(60_000, 60_000)),
    "suspicious": (".png", png(12_000, 12_000)),
    "no width": (".png", png(0, 5)),
    "huge dimensions": (".png", png(2**31 - 1, 2**31 - 1)),
    "no pixels": (".ppm", b"P6 0 0 255\n"),
    "negative size": (".bmp", by_opencv(COLOUR, ".bmp")[:18] + struct.pack("<i", -(2**31)) + bytes(100)),
    "32 bit integers": (".tif", saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF")),
    "floats": (".tif", saved(Image.fromarray(GREY.astype(np.float32)), "TIFF")),
    "odd depth": (".png", png(4, 4, depth=3)),
    "postscript": (".png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_image_is_refused_by_every_reader(kind: str, tmp_path: Path) -> None:
    suffix, content = WRONG[kind]
    for name in ("a", "b"):
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / f"x{suffix}").write_bytes(content)
    with pytest.raises(UsageError, match="is damaged or not an image") as refused:
        read_images(list_images(tmp_path / "own"), PLAIN, None, lambda done, total: None)
    assert str(refused.value).count("\n") == 0
    assert len(str(refused.value)) < 1000
    with pytest.raises(UsageError):
        image_folder(DataLocation(str(tmp_path)), "cpu", folder="own", size=8)


@pytest.mark.parametrize("kind", ["16 bit grey png", "alpha png", "exif 6", "palette"])
def test_a_stored_data_set_has_the_same_pixels(kind: str, tmp_path: Path) -> None:
    _, content, expected = RIGHT[kind]
    for place in ("train/a", "train/b", "test/a", "test/b"):
        folder = tmp_path / "fashion_mnist" / place
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(content)
    found = fashion_mnist(DataLocation(str(tmp_path)), "cpu").test.images[0, 0].numpy().astype(int)
    grey = expected.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(found - grey).max() <= 1.5


def test_odd_names_and_links_in_a_folder(tmp_path: Path) -> None:
    for name in ("a", "new\nline", "<script>"):
        (tmp_path / "d" / name).mkdir(parents=True)
        Image.fromarray(COLOUR).save(tmp_path / "d" / name / "b\nc.png")
    for name in ("a/loop.png", "a/other.png"):
        (tmp_path / "d" / name).symlink_to(tmp_path / "d" / name)
    (tmp_path / "d" / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "d" / "a" / "folder.png").mkdir()
    os.mkfifo(tmp_path / "d" / "a" / "waits.png")
    (tmp_path / "d" / "up").symlink_to(tmp_path / "d" / "up")
    listing = list_images(tmp_path / "d")
    assert listing.classes == ("<script>", "a", "new\nline")
    assert len(listing.files) == 3
    assert len(read_images(listing, PLAIN, None, lambda done, total: None)) == 3
    assert image_folder(DataLocation(str(tmp_path)), "cpu", folder="d", size=8).classes == listing.classes


@pytest.mark.parametrize("place", ["d/\udcff.png", "d/\udcff/x.png"])
def test_a_name_that_is_not_unicode_is_refused(place: str, tmp_path: Path) -> None:
    for path in (tmp_path / "d" / "x.png", tmp_path / place) if place.count("/") == 1 else (tmp_path / place,):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOUR).save(path, "PNG")
    with pytest.raises(UsageError, match="is not Unicode; rename it"):
        list_images(tmp_path / "d")


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (3, 9000), (1, 1)])
def test_of_a_long_image_the_centre_is_seen(shape: tuple[int, int], tmp_path: Path) -> None:
    height, width = shape
    image = np.zeros(shape, dtype=np.uint8)
    if width > height:
        image[:, width // 3 : 2 * width // 3 + 1] = 200
    else:
        image[height // 3 : 2 * height // 3 + 1] = 200
    Image.fromarray(image).save(tmp_path / "a.png")
    found = read_images(list_images(tmp_path), PLAIN, None, lambda done, total: None).larger
    assert (found == 200).all()


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return an image file with changed, removed or repeated bytes."""
    kinds = {**{name: (suffix, content) for name, (suffix, content, _) in RIGHT.items()}, "jpeg": (".jpg", jpeg())}
    suffix, content = kinds[draw(st.sampled_from(sorted(kinds)))]
    spoiled = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        # Most of a file is pixels; its head decides what is done with them.
        most = draw(st.sampled_from((min(64, len(spoiled)), len(spoiled)))) - 1
        place = draw(st.integers(0, max(0, most)))
        change = draw(st.sampled_from(("set", "flip", "cut", "repeat")))
        if change == "set":
            spoiled[place : place + 1] = draw(st.sampled_from((b"\x00", b"\xff", b"\x7f", b"\x80", b"\x01")))
        elif change == "flip":
            spoiled[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif change == "cut":
            del spoiled[place : place + draw(st.integers(1, 40))]
        else:
            spoiled[place:place] = spoiled[place : place + draw(st.integers(1, 40))]
        if not spoiled:
            break
    return suffix, bytes(spoiled)


def test_damaged_files_are_images_or_refused(tmp_path: Path) -> None:
    @given(damaged())
    def run(file: tuple[str, bytes]) -> None:
        path = tmp_path / f"a{file[0]}"
        path.write_bytes(file[1])
        try:
            image, content = decoded_image(path)
        except UsageError:
            return
        assert image.mode == "RGB"
        assert np.asarray(image).shape[2] == 3
        assert content == file[1]

    run()
