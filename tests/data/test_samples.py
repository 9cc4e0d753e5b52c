"""The embedded samples: balance, integrity, stable identity, and the script that made them."""

import hashlib
import runpy
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from poolbench.core import DataLocation, UsageError
from poolbench.data import Dataset, Split, load_dataset, samples
from poolbench.data.images import DIGITS, GARMENTS

CLASSES = {"mnist_sample": DIGITS, "fashion_mnist_sample": GARMENTS}
# A change of these numbers changes every result on the samples.
DIGESTS = {
    "mnist_sample": "460ce3040fa27a144c4af13840c61f58383240ff45a3b55a49a3f9cd4e1b00b4",
    "fashion_mnist_sample": "7fde25cea3e3180fda97b1cfbeb9cf120c50781b29932dd1b7c5cc7c0c4f4341",
}
LOCATION = DataLocation("absent")
MAKER = Path(__file__).parents[2] / "benchmarks" / "make_samples.py"


@pytest.fixture(scope="module", params=CLASSES)
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return load_dataset(request.param, LOCATION)


def train_split(dataset: Dataset) -> Split:
    assert isinstance(dataset.train, Split)
    return dataset.train


def rows(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


def test_samples_are_balanced(dataset: Dataset) -> None:
    assert dataset.in_shape == (1, 28, 28)
    assert dataset.classes == CLASSES[dataset.name]
    assert train_split(dataset).labels.bincount().tolist() == [200] * 10
    assert dataset.test.labels.bincount().tolist() == [100] * 10


def test_train_and_test_share_no_image(dataset: Dataset) -> None:
    assert len(rows(train_split(dataset))) == 2000
    assert not rows(train_split(dataset)) & rows(dataset.test)


def test_digest_is_stable(dataset: Dataset) -> None:
    assert dataset.digest == DIGESTS[dataset.name]


def test_statistics_are_near_those_of_the_full_set(dataset: Dataset) -> None:
    mean, std = {"mnist_sample": (0.1307, 0.3081), "fashion_mnist_sample": (0.2860, 0.3530)}[dataset.name]
    assert dataset.mean == pytest.approx((mean,), abs=0.01)
    assert dataset.std == pytest.approx((std,), abs=0.01)


def test_nearest_class_mean_recognises_the_labels(dataset: Dataset) -> None:
    """Images and labels belong together: the oldest classifier there is does well on both sets."""
    train = train_split(dataset)
    means = torch.stack([train.images[train.labels == label].double().mean(0).flatten() for label in range(10)])
    guesses = torch.cdist(dataset.test.images.double().flatten(1), means).argmin(1)
    assert (guesses == dataset.test.labels).double().mean() > 0.6


def test_held_out_part_is_balanced_and_disjoint(dataset: Dataset) -> None:
    tuning = dataset.for_tuning(0.2, seed=1)
    train = train_split(tuning)
    assert train.labels.bincount().tolist() == [160] * 10
    assert tuning.test.labels.bincount().tolist() == [40] * 10
    assert not rows(train) & rows(tuning.test)
    assert rows(train) | rows(tuning.test) == rows(train_split(dataset))


def test_a_subset_is_balanced_nested_and_of_its_seed(dataset: Dataset) -> None:
    train = train_split(dataset)
    small, large, other = train.subset(43, seed=1), train.subset(507, seed=1), train.subset(43, seed=2)
    assert (int(small.sum()), int(large.sum())) == (43, 507)
    assert sorted(train.labels[small].bincount().tolist()) == [4] * 7 + [5] * 3
    assert (large | ~small).all()
    assert torch.equal(small, train.subset(43, seed=1))
    assert not torch.equal(small, other)
    assert train.subset(2000, seed=1).all()
    # A class with fewer images than its share gives all of them.
    uneven = train.take((train.labels > 0) | (torch.arange(2000) < 100))
    rare = int((uneven.labels == 0).sum())
    assert uneven.labels[uneven.subset(1000, seed=1)].bincount()[0] == min(rare, 100)
    for count in (2001, -1):
        with pytest.raises(UsageError, match=rf"train_images is 1 to 2000, or 0 for all, got {count}"):
            train.subset(count, seed=1)


@pytest.mark.parametrize("name", CLASSES)
def test_damaged_file_is_a_usage_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "embedded"
    folder.mkdir()
    content = bytearray((files("poolbench.data") / "embedded" / f"{name}.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / f"{name}.npz").write_bytes(content)
    monkeypatch.setattr(samples, "files", lambda package: tmp_path)
    loader = getattr(samples, name)
    with pytest.raises(UsageError, match=rf"{name}.* damaged: reinstall"):
        loader(LOCATION, "cpu")
    (folder / f"{name}.npz").unlink()
    with pytest.raises(UsageError, match=rf"{name}.* cannot be read .*: reinstall"):
        loader(LOCATION, "cpu")


@pytest.mark.parametrize("name", CLASSES)
def test_readme_names_every_checksum(name: str) -> None:
    folder = files("poolbench.data") / "embedded"
    checksum = hashlib.sha256((folder / f"{name}.npz").read_bytes()).hexdigest()
    assert f"| `{checksum}` |" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not MAKER.exists(), reason="an installed package comes without the script")
def test_maker_writes_equal_bytes_and_balanced_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in ("MNIST", "FashionMNIST"):
        folder = tmp_path / "full" / name / "raw"
        folder.mkdir(parents=True)
        for part, n in (("train", 2500), ("t10k", 1200)):
            labels = (rng.permutation(n) % 10).astype(np.uint8)
            images = rng.integers(0, 256, (n, 4, 4)).astype(np.uint8)
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(np.array([0x801, n], ">i4").tobytes() + labels.tobytes())
            (folder / f"{part}-images-idx3-ubyte").write_bytes(
                np.array([0x803, n, 4, 4], ">i4").tobytes() + images.tobytes()
            )
    main = runpy.run_path(str(MAKER))["main"]
    for out in ("first", "second"):
        main([str(tmp_path / "full"), str(tmp_path / out)])
    printed = capsys.readouterr().out.splitlines()
    for name in CLASSES:
        first, second = ((tmp_path / out / f"{name}.npz").read_bytes() for out in ("first", "second"))
        assert first == second
        assert f"{hashlib.sha256(first).hexdigest()}  {name}.npz" in printed
        with np.load(tmp_path / "first" / f"{name}.npz") as arrays:
            assert arrays["train_images"].shape == (2000, 4, 4)
            assert np.bincount(arrays["train_labels"]).tolist() == [200] * 10
            assert np.bincount(arrays["test_labels"]).tolist() == [100] * 10
