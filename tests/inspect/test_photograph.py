"""The photograph: the sample, files of a user, and one line for each file that cannot be used."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from poolbench.core import UsageError
from poolbench.inspect import photograph
from poolbench.inspect.photograph import grey, read_photograph


def saved(path: Path, height: int, width: int, mode: str = "RGB") -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_the_sample_is_a_picture_with_contrast() -> None:
    found = read_photograph(None, 160)
    assert found.shape == (3, 160, 160)
    assert 0 <= found.min() < 0.1
    assert 0.8 < found.max() <= 1
    assert found.std() > 0.1


def test_the_readme_names_the_size_and_the_digest_of_the_sample() -> None:
    folder = Path(photograph.__file__).parent / "embedded"
    content = (folder / "cat.jpg").read_bytes()
    readme = (folder / "README.md").read_text()
    assert f"| {len(content):,} | `{hashlib.sha256(content).hexdigest()}` |" in readme
    assert len(content) < 60_000


@pytest.mark.parametrize(
    ("height", "width", "shape"), [(60, 90, (60, 90)), (150, 100, (120, 80)), (80, 300, (80, 300))]
)
def test_only_larger_photographs_are_scaled_by_their_shorter_side(
    tmp_path: Path, height: int, width: int, shape: tuple[int, int]
) -> None:
    assert read_photograph(saved(tmp_path / "a.png", height, width), 80).shape == (3, *shape)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "RGB"])
def test_pictures_of_any_mode_become_colours_between_0_and_1(tmp_path: Path, mode: str) -> None:
    found = read_photograph(saved(tmp_path / "a.png", 60, 60, mode), 160)
    assert found.shape == (3, 60, 60)
    assert found.min() >= 0
    assert found.max() <= 1


def test_pixels_are_kept_where_nothing_is_scaled(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", 50, 70)
    expected = np.asarray(Image.open(path)).transpose(2, 0, 1) / 255
    assert np.array_equal(read_photograph(path, 160).numpy(), expected)


def test_grey_is_the_brightness() -> None:
    colours = torch.eye(3)[:, None, :]
    assert torch.allclose(grey(colours), torch.tensor([[0.299, 0.587, 0.114]]))


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    cut = saved(tmp_path / "cut.jpg", 200, 200)
    cut.write_bytes(cut.read_bytes()[:3000])
    for path, message in (
        (tmp_path / "absent.png", "does not exist; give a PNG or JPEG"),
        (tmp_path, "is a folder; give a PNG or JPEG"),
        (tmp_path / "text.png", "is damaged or not an image"),
        (cut, "is damaged or not an image"),
        (saved(tmp_path / "small.png", 47, 90), "is 90x47 px; give a picture of at least 48 px"),
        (
            saved(tmp_path / "strip.png", 50, 201),
            "is 201x50 px; crop it so that its longer side is at most 4 times the other",
        ),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            read_photograph(path, 160)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_damaged_sample_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photograph, "SHA256", "0" * 64)
    with pytest.raises(UsageError, match="missing or damaged: reinstall poolbench"):
        read_photograph(None, 160)
