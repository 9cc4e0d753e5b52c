"""Reading a user's images: kinds of files, orientation, sizes, subsets, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from poolbench.core import UsageError
from poolbench.own_model import images
from poolbench.own_model.images import (
    Images,
    Listing,
    balanced_subset,
    larger_side,
    list_images,
    named_transform,
    read_images,
)
from poolbench.own_model.model import Preprocessing

SIZE = 14
LARGE = 16
PLAIN = Preprocessing(SIZE, (0.0,) * 3, (1.0,) * 3)


def read(folder: Path, limit: int | None = None) -> Images:
    return read_images(list_images(folder, limit), PLAIN, None, lambda done, total: None)


@pytest.mark.parametrize(("size", "large"), [(224, 256), (14, 16), (32, 37), (4, 6)])
def test_the_larger_image_leaves_room_for_a_step(size: int, large: int) -> None:
    assert larger_side(size) == large


def test_class_folders_are_labels_and_a_flat_folder_has_none(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    drawn(tmp_path / "data", 2, ("cat", "ant"))
    (tmp_path / "data" / "empty").mkdir()
    (tmp_path / "data" / "cat" / "notes.txt").write_text("no image")
    listing = list_images(tmp_path / "data")
    assert listing.classes == ("ant", "cat")
    assert listing.labels is not None
    assert listing.labels.tolist() == [0, 0, 1, 1]
    assert [path.parent.name for path in listing.files] == ["ant", "ant", "cat", "cat"]
    flat = list_images(drawn(tmp_path / "flat", 3, ()))
    assert flat.labels is None
    assert len(flat.files) == 3


def test_a_limit_is_balanced_and_repeatable(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    drawn(tmp_path, 9, ("a", "b"))
    drawn(tmp_path, 2, ("c",))
    listing = list_images(tmp_path, 10)
    assert listing.labels is not None
    assert np.bincount(listing.labels).tolist() == [4, 4, 2]
    assert listing.files == list_images(tmp_path, 10).files
    assert len(list_images(tmp_path, 500).files) == 20
    with pytest.raises(UsageError, match="--limit 2 is less than an image for each of the 3 classes"):
        list_images(tmp_path, 2)


@pytest.mark.parametrize("count", [5, 6, 9, 40])
def test_a_subset_is_balanced_nested_and_another_for_another_purpose(count: int) -> None:
    labels = np.repeat([0, 1, 2], [10, 4, 2])
    index = balanced_subset(labels, count, 16, "this")
    counts = np.bincount(labels[index], minlength=3)
    assert counts.sum() == min(count, 16)
    assert counts.max() - counts.min() <= 1 or counts[2] == 2
    assert set(index) <= set(balanced_subset(labels, count + 3, 16, "this"))
    assert count > 16 or not np.array_equal(index, balanced_subset(labels, count, 16, "that"))
    assert len(balanced_subset(None, count, 16, "this")) == min(count, 16)


def test_only_compared_images_are_rescaled(
    tmp_path: Path, drawn: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "COMPARED_IMAGES", 6)
    found = read(drawn(tmp_path, 5, side=30))
    assert found.listing.labels is not None
    assert np.bincount(found.listing.labels[found.compared]).tolist() == [2, 2, 2]
    # One pixel less or more of the same images: closer to their own crops than to those of any other.
    own = found.larger[found.compared][:, :, 1 : 1 + SIZE, 1 : 1 + SIZE].float()
    for crops in found.rescaled.values():
        distances = (crops.float()[:, None] - own[None]).abs().mean(dim=(2, 3, 4))
        assert distances.argmin(dim=1).tolist() == list(range(6))


def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    wide = np.zeros((LARGE, 3 * LARGE, 3), dtype=np.uint8)
    wide[:, LARGE : 2 * LARGE] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide).resize((LARGE * 6, LARGE * 2)).save(tmp_path / "wider.png")
    found = read(tmp_path)
    assert found.larger.shape == (2, 3, LARGE, LARGE)
    assert bool((found.larger[0] == 200).all())
    assert bool((found.larger[1, :, 2:-2, 2:-2] == 200).all())
    assert found.enlarged == 0
    assert {step: tuple(crops.shape) for step, crops in found.rescaled.items()} == {
        -1: (2, 3, SIZE, SIZE), 1: (2, 3, SIZE, SIZE)
    }  # fmt: skip


def test_small_images_are_enlarged_and_counted(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    drawn(tmp_path, 2, (), side=LARGE - 1)
    drawn(tmp_path / "x", 3, (), side=LARGE)
    for index, path in enumerate(sorted((tmp_path / "x").iterdir())):
        path.rename(tmp_path / f"large{index}.png")
    assert read(tmp_path).enlarged == 2


def test_all_kinds_of_images_become_rgb(tmp_path: Path) -> None:
    ramp = Image.fromarray(np.full((LARGE, LARGE, 3), (51, 102, 204), dtype=np.uint8))
    ramp.save(tmp_path / "a.png")
    ramp.convert("P").save(tmp_path / "b.gif")
    ramp.convert("L").save(tmp_path / "c.png")
    clear = ramp.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "d.png")
    Image.fromarray(np.full((LARGE, LARGE), 51400, dtype=np.uint16)).save(tmp_path / "e.png")
    pixels = read(tmp_path).larger[:, :, 3, 3].tolist()
    assert pixels[0] == [51, 102, 204]
    assert pixels[1] == [51, 102, 204]
    assert pixels[2] == [ramp.convert("L").getpixel((0, 0))] * 3
    assert pixels[3] == [0, 0, 0]
    assert pixels[4] == [200] * 3


def test_the_orientation_of_the_camera_is_obeyed(tmp_path: Path) -> None:
    upright = np.zeros((LARGE, LARGE, 3), dtype=np.uint8)
    upright[: LARGE // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is on the right of the stored image
    Image.fromarray(np.rot90(upright, 1).copy()).save(tmp_path / "photo.png", exif=exif)
    found = read(tmp_path).larger[0, 0].float()
    assert float(found[0].mean()) == 255
    assert float(found[-1].mean()) == 0


def test_equal_files_have_equal_digests(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    first, second = read(drawn(tmp_path / "one")), read(drawn(tmp_path / "two"))
    assert first.digest == second.digest
    (tmp_path / "two" / "a" / "0.png").rename(tmp_path / "two" / "a" / "9.png")
    assert read(tmp_path / "two").digest != first.digest


def test_a_transform_replaces_resizing(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy, torch\n\n\ndef halves(image):\n"
        "    return torch.from_numpy(numpy.array(image.resize((20, 18)))).permute(2, 0, 1) / 510\n\n\n"
        "def small(image):\n    return torch.zeros(3, 8, 8)\n\n\ndef broken(image):\n    raise KeyError('x')\n"
    )
    listing = list_images(drawn(tmp_path / "data"))
    found = read_images(listing, PLAIN, named_transform(f"{tmp_path}/own.py:halves"), lambda done, total: None)
    assert found.larger.dtype == torch.float32
    assert float(found.larger.max()) <= 0.5
    assert not found.rescaled
    for name, message in (("small", r"returns \(3, 8, 8\) for '.*', not a tensor"), ("broken", "transform fails for")):
        transform = named_transform(f"{tmp_path}/own.py:{name}")
        with pytest.raises(UsageError, match=message):
            read_images(listing, PLAIN, transform, lambda done, total: None)
    with pytest.raises(UsageError, match="has no function 'absent'"):
        named_transform(f"{tmp_path}/own.py:absent")


def test_folders_without_images_are_refused(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        list_images(tmp_path / "absent")
    with pytest.raises(UsageError, match="holds no images"):
        list_images(tmp_path)
    drawn(drawn(tmp_path / "both"), 1, ())
    with pytest.raises(UsageError, match=r"has images beside its class folders, like '0.png'"):
        list_images(tmp_path / "both")
    with pytest.raises(UsageError, match=r"images of one class only, 'cat'; .* --data '.*one/cat'"):
        list_images(drawn(tmp_path / "one", 2, ("cat",)))


def test_more_images_than_memory_are_refused_before_one_is_read(tmp_path: Path) -> None:
    # More bytes than a process can address, whatever the machine has.
    listing = Listing(tmp_path, (tmp_path / "absent.png",) * 3_000_000, (), None)
    large = Preprocessing(4096, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(UsageError, match=r"^3,000,000 images of 4681x4681 px take 197,205\.8 GB, "):
        read_images(listing, large, None, lambda done, total: None)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, None])
def test_a_damaged_image_is_named(tmp_path: Path, drawn: Callable[..., Path], content: bytes | None) -> None:
    path = drawn(tmp_path, 2) / "b" / "1.png"
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(
        UsageError, match=r"b/1.png' is damaged or not an image \(.*\); replace or remove it"
    ) as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)
