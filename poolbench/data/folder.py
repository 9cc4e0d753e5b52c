"""The data set ``image_folder``: photographs of the user's, a folder per class."""

from __future__ import annotations

from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor

from poolbench.core import DataLocation, UsageError
from poolbench.data.dataset import Dataset, Split, images_dataset
from poolbench.data.decoding import decoded_image
from poolbench.data.images import class_folders, pictures_of
from poolbench.data.subsets import check_size
from poolbench.registry import datasets

TESTED = 0.2


@datasets.register("image_folder")
def image_folder(location: DataLocation, device: str, folder: str = "photos", size: int = 64) -> Dataset:
    """Your photographs in FOLDER/CLASS/*.png|jpg below the data folder, of any size, RGB; a fifth are test images."""
    if PurePath(folder).is_absolute() or ".." in PurePath(folder).parts:
        # The option may be that of a stranger's cell.
        raise UsageError(f"folder={folder} is not inside the data folder; give the name of a folder there")
    root = Path(location.folder) / folder
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}: put photographs into {root}/CLASS/, or name it with folder=NAME")
    check_size(size)
    classes = class_folders(root)
    if len(classes) < 2:
        raise UsageError(
            f"{root} needs a folder per class, two or more, got {len(classes)}: sort the pictures into them"
        )
    pictures = pictures_of(root, classes)
    images = torch.stack([_read(picture.path, size) for picture in pictures])
    everything = Split(images, torch.tensor([picture.label for picture in pictures]))
    train, test = everything.held_out(TESTED, seed=0)
    return images_dataset("image_folder", classes, train.to(device), test.to(device), f"image folder {root}")


def _read(path: Path, size: int) -> Tensor:
    """Return the centre of a picture as uint8 (3, size, size), its shorter side resized to ``size`` px."""
    from PIL import ImageOps

    image, _ = decoded_image(path)
    return torch.from_numpy(np.array(ImageOps.fit(image, (size, size)))).permute(2, 0, 1)
