"""Image data sets from tiny files of both layouts: what is read, what is cached, what is refused."""

import hashlib
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from poolbench.core import DataLocation, MissingData, UsageError
from poolbench.data import Dataset, Split, images, load_dataset
from poolbench.data.images import CIFAR10_CLASSES, DIGITS, GARMENTS, cifar10, fashion_mnist, mnist

Loader = Callable[[DataLocation, str], Dataset]

IDX_FOLDERS = {mnist: "MNIST/raw", fashion_mnist: "FashionMNIST/raw"}
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PICTURES = {mnist: "mnist", fashion_mnist: "fashion_mnist", cifar10: "cifar10"}


def load(loader: Loader, folder: Path, download: bool = False) -> Dataset:
    return loader(DataLocation(str(folder), download), "cpu")


def train_split(dataset: Dataset) -> Split:
    assert isinstance(dataset.train, Split)
    return dataset.train


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">{1 + array.ndim}i", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(folder: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write the four IDX files with random 6x5 images and return their arrays."""
    rng = np.random.default_rng(seed)
    arrays = {}
    folder.mkdir(parents=True)
    for part, n in (("train", 20), ("t10k", 10)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 6, 5))
        arrays[f"{part}-labels-idx1-ubyte"] = rng.permutation(n) % 10
    for name, array in arrays.items():
        write_idx(folder / name, array)
    return arrays


def write_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Write the batches with random images, teach torchvision their MD5, and return the images (n, 3, 32, 32)."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    batches = rng.integers(0, 256, (len(names), 4, 3072)).astype(np.uint8)
    contents = {name: {"data": batch, "labels": [0, 3, 6, 9]} for name, batch in zip(names, batches, strict=True)}
    md5 = {}
    for name, content in {**contents, "batches.meta": {"label_names": list(CIFAR10_CLASSES)}}.items():
        (folder / name).write_bytes(pickle.dumps(content))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [[name, md5[name]] for name in names[:5]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5["batches.meta"]})
    return batches.reshape(-1, 3, 32, 32)


def write_pictures(
    root: Path, classes: tuple[str, ...] = ("ant", "bee"), per_class: int = 3, mode: str = "RGB", suffix: str = "png"
) -> dict[str, np.ndarray]:
    """Write random 7x5 pictures into ROOT/{train,test}/CLASS and return them by relative path."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part in ("train", "test"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(per_class):
                array = rng.integers(0, 256, (5, 7, 3) if mode == "RGB" else (5, 7)).astype(np.uint8)
                Image.fromarray(array).save(root / part / name / f"{i}.{suffix}")
                arrays[f"{part}/{name}/{i}.{suffix}"] = array
    return arrays


def decoder_that_fails(*_: object) -> None:
    raise AssertionError("the pictures were decoded again")


@pytest.mark.parametrize(("loader", "classes"), [(mnist, DIGITS), (fashion_mnist, GARMENTS)])
def test_reads_idx_files(loader: Loader, classes: tuple[str, ...], tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path / IDX_FOLDERS[loader])
    dataset = load(loader, tmp_path)
    assert dataset.name == PICTURES[loader]
    assert dataset.classes == classes
    assert dataset.in_shape == (1, 6, 5)
    for part, split in (("train", train_split(dataset)), ("t10k", dataset.test)):
        np.testing.assert_array_equal(split.images[:, 0].numpy(), arrays[f"{part}-images-idx3-ubyte"])
        np.testing.assert_array_equal(split.labels.numpy(), arrays[f"{part}-labels-idx1-ubyte"])
    pixels = arrays["train-images-idx3-ubyte"] / 255
    np.testing.assert_allclose(dataset.mean, [pixels.mean()])
    np.testing.assert_allclose(dataset.std, [pixels.std()])


def test_reads_cifar10_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = write_cifar10(tmp_path / "cifar-10-batches-py", monkeypatch)
    dataset = load(cifar10, tmp_path)
    train = train_split(dataset)
    assert dataset.classes == CIFAR10_CLASSES
    np.testing.assert_array_equal(train.images.numpy(), expected[:20])
    np.testing.assert_array_equal(dataset.test.images.numpy(), expected[20:])
    assert train.labels.tolist() == [0, 3, 6, 9] * 5
    np.testing.assert_allclose(dataset.mean, (expected[:20] / 255).mean((0, 2, 3)))
    np.testing.assert_allclose(dataset.std, (expected[:20] / 255).std((0, 2, 3)))


@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_damaged_cifar10_batch_is_a_usage_error(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder, monkeypatch)
    (folder / file).write_bytes((folder / file).read_bytes()[:-7])
    with pytest.raises(UsageError, match=r"cifar-10-batches-py are damaged .*--download") as error:
        load(cifar10, tmp_path)
    assert "\n" not in str(error.value)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:-3],
    "header only": lambda content: content[:6],
    "empty": lambda content: b"",
    "trailing bytes": lambda content: content + b"\0",
    "wrong magic": lambda content: b"\x1f\x8b\x08\x08" + content[4:],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", IDX_FILES)
def test_damaged_idx_file_is_a_usage_error(file: str, damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_mnist(folder)
    (folder / file).write_bytes(DAMAGES[damage]((folder / file).read_bytes()))
    with pytest.raises(UsageError, match=r"mnist in .*raw are damaged .*--download") as error:
        load(mnist, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "array", "reason"),
    [
        ("train-labels-idx1-ubyte", np.zeros(19), "20 train images with 19 labels"),
        ("t10k-labels-idx1-ubyte", np.full(10, 10), r"test labels outside 0\.\.9"),
        ("t10k-images-idx3-ubyte", np.zeros((10, 6, 6)), "differ in size"),
    ],
)
def test_idx_files_that_do_not_fit_together_are_a_usage_error(
    file: str, array: np.ndarray, reason: str, tmp_path: Path
) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_mnist(folder)
    write_idx(folder / file, array)
    with pytest.raises(UsageError, match=reason):
        load(mnist, tmp_path)


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "jpeg"])
def test_reads_image_folder(suffix: str, tmp_path: Path) -> None:
    arrays = write_pictures(tmp_path / "cifar10", suffix=suffix)
    (tmp_path / "cifar10" / "train" / "ant" / "notes.txt").write_text("not a picture")
    dataset = load(cifar10, tmp_path)
    train = train_split(dataset)
    assert dataset.classes == ("ant", "bee")
    assert dataset.in_shape == (3, 5, 7)
    assert train.labels.tolist() == dataset.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    if suffix.lower() == "png":  # JPEG loses
        stacked = {p: np.stack([a for path, a in arrays.items() if path.startswith(p)]) for p in ("train", "test")}
        np.testing.assert_array_equal(train.images.numpy(), stacked["train"].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(dataset.test.images.numpy(), stacked["test"].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("loader", [mnist, fashion_mnist])
def test_gray_data_sets_have_one_channel_whatever_the_pictures_have(loader: Loader, tmp_path: Path) -> None:
    for mode in ("L", "RGB"):
        folder = tmp_path / mode
        write_pictures(folder / PICTURES[loader], classes=DIGITS, per_class=1, mode=mode)
        dataset = load(loader, folder)
        assert dataset.in_shape == (1, 5, 7)
        assert dataset.classes == DIGITS


def test_torchvision_files_come_before_image_folders(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    write_pictures(tmp_path / "mnist", mode="L")
    assert load(mnist, tmp_path).in_shape == (1, 6, 5)
    (tmp_path / "MNIST" / "raw" / IDX_FILES[3]).unlink()
    assert load(mnist, tmp_path).in_shape == (1, 5, 7)


def test_second_read_takes_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "cifar10")
    first = load(cifar10, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar10", "cifar10.cache.pt"]
    monkeypatch.setattr(images, "_decode", decoder_that_fails)
    assert load(cifar10, tmp_path).digest == first.digest


@pytest.mark.parametrize("change", ["touch", "rename", "add", "remove", "damage the cache"])
def test_cache_follows_the_folder(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "cifar10"
    write_pictures(root)
    first = load(cifar10, tmp_path)
    picture = root / "train" / "ant" / "0.png"
    if change == "touch":
        os.utime(picture, ns=(1, 1))
    elif change == "rename":
        picture.rename(picture.with_name("9.png"))
    elif change == "add":
        shutil.copy(picture, picture.with_name("9.png"))
    elif change == "remove":
        picture.unlink()
    else:
        (tmp_path / "cifar10.cache.pt").write_bytes(b"PK\x03\x04 half a cache")
    second = load(cifar10, tmp_path)
    assert (second.digest == first.digest) == (change in ("touch", "damage the cache"))
    assert len(second.train) == 6 + {"add": 1, "remove": -1}.get(change, 0)
    monkeypatch.setattr(images, "_decode", decoder_that_fails)  # the new state is cached in its turn
    assert load(cifar10, tmp_path).digest == second.digest


def test_folder_that_takes_no_cache_is_read_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "cifar10")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    # The mode of a folder does not stop root, who runs the tests in many containers.
    monkeypatch.setattr("torch.save", refuse)
    assert len(load(cifar10, tmp_path).train) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["cifar10"]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_picture_is_a_usage_error(suffix: str, damage: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "cifar10", suffix=suffix)
    picture = tmp_path / "cifar10" / "test" / "bee" / f"1.{suffix}"
    content = picture.read_bytes()
    picture.write_bytes({"truncated": content[: -len(content) // 3], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(UsageError, match=rf"test.bee.1\.{suffix}' is damaged or not an image") as error:
        load(cifar10, tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cifar10.cache.pt").exists()


def test_pictures_of_two_sizes_are_a_usage_error(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cifar10")
    Image.new("RGB", (9, 8)).save(tmp_path / "cifar10" / "train" / "bee" / "2.png")
    with pytest.raises(UsageError, match=r"0\.png is 7x5 and .*bee.2\.png is 9x8"):
        load(cifar10, tmp_path)


def test_classes_that_differ_between_train_and_test_are_a_usage_error(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cifar10")
    (tmp_path / "cifar10" / "train" / "wasp").mkdir()
    with pytest.raises(UsageError, match=r"same classes.* wasp"):
        load(cifar10, tmp_path)


def test_class_without_pictures_is_a_usage_error(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cifar10")
    for part in ("train", "test"):
        (tmp_path / "cifar10" / part / "wasp").mkdir()
    with pytest.raises(UsageError, match=r"train.wasp holds no pictures"):
        load(cifar10, tmp_path)


def test_image_folder_without_test_part_is_a_usage_error(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cifar10")
    shutil.rmtree(tmp_path / "cifar10" / "test")
    with pytest.raises(UsageError, match=r"test is missing"):
        load(cifar10, tmp_path)


@pytest.mark.parametrize("loader", PICTURES)
def test_absent_data_say_how_to_fetch_them(loader: Loader, tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=rf"^{PICTURES[loader]} is not in .*--download") as error:
        load(loader, tmp_path / "nowhere")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "nowhere").exists()


def test_incomplete_data_name_the_absent_file(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / IDX_FILES[3]).unlink()
    with pytest.raises(MissingData, match=rf"no MNIST/raw/{IDX_FILES[3]}\)"):
        load(mnist, tmp_path)


@pytest.mark.parametrize("loader", PICTURES)
def test_failed_download_is_missing_data(loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route\nto host")

    for module in ("mnist", "cifar"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", unreachable)
    with pytest.raises(MissingData, match=rf"{PICTURES[loader]} could not be downloaded .*no route to host"):
        load(loader, tmp_path, download=True)


def test_download_fetches_what_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "elsewhere"
    write_mnist(source)

    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        shutil.copy(source / filename.removesuffix(".gz"), download_root)

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetch)
    fetched = load(mnist, tmp_path / "data", download=True)
    monkeypatch.undo()
    assert load(mnist, tmp_path / "data").digest == fetched.digest


def test_padding_adds_black_pixels_on_every_side() -> None:
    dataset = load_dataset("fashion_mnist_sample", DataLocation("."))
    wider = load_dataset("fashion_mnist_sample", DataLocation("."), pad=2)
    assert wider.in_shape == (1, 32, 32)
    for before, after in ((dataset.train, wider.train), (dataset.test, wider.test)):
        assert isinstance(before, Split)
        assert isinstance(after, Split)
        assert torch.equal(after.images[:, :, 2:-2, 2:-2], before.images)
        assert int(after.images.sum()) == int(before.images.sum())
        assert torch.equal(after.labels, before.labels)
    assert wider.digest != dataset.digest
    assert wider.mean[0] == pytest.approx(dataset.mean[0] * 28**2 / 32**2)
    with pytest.raises(UsageError, match="unknown shapes option 'pad'"):
        load_dataset("shapes", DataLocation("."), pad=2)
    with pytest.raises(UsageError, match="pad is at least 0 pixels, got -1"):
        load_dataset("fashion_mnist_sample", DataLocation("."), pad=-1)
