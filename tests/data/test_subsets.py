"""Subsets and the user's own photographs: which images, which labels, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from poolbench.core import DataLocation, MissingData, UsageError
from poolbench.data import Split, load_dataset

NOWHERE = DataLocation("absent")


def test_tops_are_the_four_classes_of_the_embedded_garments() -> None:
    whole, tops = load_dataset("fashion_mnist_sample", NOWHERE), load_dataset("tops_sample", NOWHERE, size=28)
    assert isinstance(whole.train, Split)
    assert isinstance(tops.train, Split)
    assert len(tops.train) == 800
    assert len(tops.test) == 400
    for index, name in enumerate(tops.classes):
        old = whole.classes.index(name)
        # At the original size nothing is resized, so the images are the same bytes.
        assert torch.equal(tops.train.images[tops.train.labels == index], whole.train.images[whole.train.labels == old])


def test_images_are_enlarged_without_a_change_of_their_mean() -> None:
    small, large = (load_dataset("tops_sample", NOWHERE, size=size) for size in (28, 64))
    assert large.in_shape == (1, 64, 64)
    assert large.test.images.float().mean().item() == pytest.approx(small.test.images.float().mean().item(), rel=0.02)
    with pytest.raises(UsageError, match="size is at least 8 px, got 4"):
        load_dataset("tops_sample", NOWHERE, size=4)


def test_cats_and_dogs_need_cifar10(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="cifar10 is not in"):
        load_dataset("cats_dogs", DataLocation(str(tmp_path / "absent")))
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "deer", "dog")):
            folder = tmp_path / "cifar10" / part / name
            folder.mkdir(parents=True)
            for index in range(3):
                Image.new("RGB", (32, 32), (40 * label, 0, 0)).save(folder / f"{index}.png")
    data = load_dataset("cats_dogs", DataLocation(str(tmp_path)))
    assert data.classes == ("cat", "dog")
    assert data.test.images[:, 0, 0, 0].tolist() == [0, 0, 0, 80, 80, 80]
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]


def photographs(folder: Path, per_class: int = 5) -> DataLocation:
    for label, name in enumerate(("hot dog", "no hot dog")):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(per_class):
            side = 40 + 10 * index
            Image.new("RGB", (2 * side, side), (200 * label, 0, 0)).save(folder / "photos" / name / f"{index}.png")
    return DataLocation(str(folder))


def test_photographs_of_any_size_are_read_with_a_fifth_to_test(tmp_path: Path) -> None:
    data = load_dataset("image_folder", photographs(tmp_path), size=16)
    assert isinstance(data.train, Split)
    assert data.classes == ("hot dog", "no hot dog")
    assert data.in_shape == (3, 16, 16)
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert data.test.labels.tolist() == [0, 1]
    assert data.test.images[:, 0].unique().tolist() == [0, 200]


def test_a_photograph_is_cut_to_its_centre(tmp_path: Path) -> None:
    location = photographs(tmp_path, 2)
    picture = np.zeros((10, 30, 3), dtype=np.uint8)
    picture[:, 10:20] = 255
    for index in range(2):
        Image.fromarray(picture).save(tmp_path / "photos" / "hot dog" / f"{index}.png")
    data = load_dataset("image_folder", location, size=10)
    assert isinstance(data.train, Split)
    assert data.train.images[0].min() == 255


def test_pictures_of_odd_kinds_are_read_as_they_look(tmp_path: Path) -> None:
    location = photographs(tmp_path, 5)
    folder = tmp_path / "photos" / "hot dog"
    Image.fromarray(np.full((40, 40), 32768, dtype=np.uint16)).save(folder / "0.png")  # 16 bits: half way to white
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(folder / "1.png")  # transparent
    half = np.zeros((40, 40, 3), dtype=np.uint8)
    half[:20] = 255
    turned = Image.fromarray(half)
    turned.getexif()[0x0112] = 3  # to be turned by 180 degrees
    turned.save(folder / "2.png", exif=turned.getexif())
    data = load_dataset("image_folder", location, size=40)
    assert isinstance(data.train, Split)
    everything = torch.cat([data.train.images, data.test.images])
    means = sorted(everything[torch.cat([data.train.labels, data.test.labels]) == 0].float().mean((1, 2, 3)).tolist())
    assert means == pytest.approx([0, 0, 0, 127, 127.5], abs=1)
    upside_down = [image for image in everything if 100 < image.float().mean() < 150 and image[0, 0, 0] == 0]
    assert len(upside_down) == 1


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*absent: put photographs into .*absent/CLASS/"):
        load_dataset("image_folder", DataLocation(str(tmp_path)), folder="absent")
    (tmp_path / "one" / "cat").mkdir(parents=True)
    with pytest.raises(UsageError, match="needs a folder per class, two or more, got 1"):
        load_dataset("image_folder", DataLocation(str(tmp_path)), folder="one")
    (tmp_path / "two" / "cat").mkdir(parents=True)
    (tmp_path / "two" / "dog").mkdir()
    with pytest.raises(UsageError, match="cat holds no pictures"):
        load_dataset("image_folder", DataLocation(str(tmp_path)), folder="two")
    for name in ("cat", "dog"):
        (tmp_path / "three" / name).mkdir(parents=True)
        (tmp_path / "three" / name / "a.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"a\.png' is damaged or not an image .*; replace or remove it"):
        load_dataset("image_folder", DataLocation(str(tmp_path)), folder="three")
    with pytest.raises(UsageError, match="size is at least 8 px, got 7"):
        load_dataset("image_folder", DataLocation(str(tmp_path)), folder="two", size=7)
