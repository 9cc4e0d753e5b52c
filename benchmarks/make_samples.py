"""Write the embedded samples of MNIST and FashionMNIST; equal sources give equal bytes.

    python benchmarks/make_samples.py DIR [OUT]

DIR holds MNIST/raw and FashionMNIST/raw as torchvision stores them. The files are written to OUT, by default the
folder in the package. Copy the printed sha256 to ``poolbench/data/samples.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poolbench.core import DataLocation, MissingData, UsageError, derive_seed
from poolbench.data import Split, load_dataset

SEED = 0
SOURCES = ("mnist", "fashion_mnist")
PER_CLASS = {"train": 200, "test": 100}
EMBEDDED = Path(__file__).parents[1] / "poolbench" / "data" / "embedded"


def choose(split: Split, per_class: int, seed: int) -> Split:
    """Return ``per_class`` random images of every class, in the order of the split; raise UsageError for too few."""
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in range(int(split.labels.max()) + 1):
        members = (split.labels == label).nonzero().flatten()
        if len(members) < per_class:
            raise UsageError(f"class {label} has {len(members)} images, {per_class} are needed: use the full data set")
        chosen.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
    return split.take(torch.cat(chosen).sort().values)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Write an .npz whose bytes depend only on the arrays and return its sha256."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            # np.savez_compressed would store the current time with each member.
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system = 3  # the default depends on the platform
            archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_sample(source: str, folder: str, out: Path) -> str:
    """Write OUT/<source>_sample.npz from the full data set in ``folder`` and return its sha256."""
    dataset = load_dataset(source, DataLocation(folder))
    out.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, full in (("train", dataset.train), ("test", dataset.test)):
        assert isinstance(full, Split)
        sample = choose(full, PER_CLASS[part], derive_seed(SEED, f"{source} {part} sample"))
        arrays[f"{part}_images"] = sample.images.squeeze(1).numpy()
        arrays[f"{part}_labels"] = sample.labels.to(torch.uint8).numpy()
    return write_npz(out / f"{source}_sample.npz", arrays)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write both samples and print their sha256."""
    parser = argparse.ArgumentParser(description="Make the embedded samples of MNIST and FashionMNIST.")
    parser.add_argument("folder", metavar="DIR", help="folder with MNIST/raw and FashionMNIST/raw")
    parser.add_argument("out", metavar="OUT", nargs="?", type=Path, default=EMBEDDED, help="where the files go")
    options = parser.parse_args(arguments)
    try:
        for source in SOURCES:
            print(f"{make_sample(source, options.folder, options.out)}  {source}_sample.npz")
    except (MissingData, UsageError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
