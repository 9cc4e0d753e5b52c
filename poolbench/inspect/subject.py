"""What is inspected: a network, the images it is shown, and the images that its numbers are measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.data.dataset import to_pixels
from poolbench.inspect.stages import Shape
from poolbench.measures.classification import predictions
from poolbench.own_model.images import SUFFIXES, Images, Listing, Transform, read_images
from poolbench.own_model.model import OwnModel
from poolbench.own_model.sites import swapped
from poolbench.recording import CPU_ELEMENTS, outputs
from poolbench.registry import pools
from poolbench.surgery import find_sites

LEAST_BATCH = 8
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Shown:
    """An image (c, h, w) that is looked at: the network's input before normalisation. ``label`` is None if unknown."""

    name: str
    pixels: Tensor
    label: int | None


@dataclass(frozen=True)
class Subject:
    """A network and its images.

    ``networks`` are {name: network} with inputs (b, c, h, w), the original first. ``images`` (n, c, h, w), pixels as
    uint8 or inputs as float32, are those that numbers are measured on, with their ``names`` and ``labels`` (n,), None
    if unknown. ``description`` says more than the name, ``weights`` where the weights are from, ``source`` where the
    images are. ``mask`` is put on pixels.
    """

    name: str
    description: str
    networks: dict[str, nn.Module]
    weights: str
    is_untrained: bool
    classes: tuple[str, ...]
    shown: tuple[Shown, ...]
    images: Tensor
    names: tuple[str, ...]
    labels: Tensor | None
    source: str
    mask: str = "none"

    @property
    def in_shape(self) -> Shape:
        """The (c, h, w) of the images."""
        channels, height, width = self.shown[0].pixels.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        network = next(iter(self.networks.values()))
        return next(network.parameters(), torch.zeros(())).device

    def __len__(self) -> int:
        """Return the number of images that numbers are measured on."""
        return len(self.images)

    def batches(self, most: int | None = None) -> Iterator[Tensor]:
        """Yield the images that numbers are measured on, at most ``most``, in batches (b, c, h, w) of inputs."""
        size = max(LEAST_BATCH, CPU_ELEMENTS // self.images[0].numel())
        for batch in self.images[:most].split(size):
            yield as_input(batch, self.mask).to(self.device)

    def class_name(self, index: int) -> str:
        """Return the name of a class, or "class 3" where names are not known."""
        return self.classes[index] if index < len(self.classes) else f"class {index}"


def as_input(images: Tensor, mask: str = "none") -> Tensor:
    """Return images (b, c, h, w) as floats: uint8 pixels in [0, 1] and masked, others as they are."""
    return to_pixels(images, mask) if images.dtype == torch.uint8 else images.float()


def read_pictures(files: Sequence[Path], model: OwnModel, transform: Transform | None) -> list[tuple[str, Tensor]]:
    """Return (name, input (3, size, size)) of image files, the centre as ``poolbench evaluate`` crops it.

    Raises UsageError for a file that does not exist or cannot be decoded.
    """
    found = []
    for file in files:
        if not file.is_file():
            raise UsageError(f"there is no image '{file}'; give a file ({', '.join(SUFFIXES)}) with --image")
        listing = Listing(file.parent, (file,), (), None)
        read = read_images(listing, model.preprocessing, transform, lambda done, total: None)
        found.append((file.name, as_input(centres(read, model.preprocessing.size))[0]))
    return found


def centres(images: Images, size: int) -> Tensor:
    """Return the centre crops (n, 3, size, size) of larger images, in their own type."""
    margin = (images.larger.shape[-1] - size) // 2
    return images.larger[:, :, margin : margin + size, margin : margin + size]


def own_subject(
    model: OwnModel, pictures: Sequence[tuple[str, Tensor]], files: Sequence[Path], images: Images | None
) -> Subject:
    """Return a user's model with the pictures it is shown, and the images of a folder to measure numbers on.

    The label of a picture is the name of its folder, if the images have a class of that name.
    """
    classes = () if images is None else images.listing.classes
    folders = [file.resolve().parent.name for file in files]
    shown = tuple(
        Shown(name, pixels, classes.index(folder) if folder in classes else None)
        for (name, pixels), folder in zip(pictures, folders, strict=True)
    )
    described = (
        model.spec,
        model.description,
        {AS_IT_IS: model.network},
        model.weights,
        model.is_untrained,
        classes,
        shown,
    )
    if images is None:
        names = tuple(one.name for one in shown)
        return Subject(*described, torch.stack([one.pixels for one in shown]), names, None, "the images shown")
    listing = images.listing
    labels = None if listing.labels is None else torch.from_numpy(listing.labels)
    names = tuple(file.relative_to(listing.folder).as_posix() for file in listing.files)
    return Subject(*described, centres(images, model.preprocessing.size), names, labels, str(listing.folder))


def with_pools(subject: Subject, names: Sequence[str]) -> Subject:
    """Return a subject with copies of its network in which these pools replace all downsamplings, weights kept.

    Raises UsageError for a pool that does not exist or does not fit, and for a network without downsamplings.
    """
    networks = dict(subject.networks)
    original = next(iter(networks.values()))
    for name in names:
        sites = [site.path for site in find_sites(original, subject.in_shape) if site.kind != "patch_embedding"]
        if not sites:
            raise UsageError(f"{subject.name} has no strided convolution or pool that '{name}' could replace")
        changed, _ = swapped(original, pools.parse(name), subject.in_shape, sites)
        networks[name] = changed.to(subject.device).requires_grad_(False)
    return replace(subject, networks=networks)


def accuracy_of(network: nn.Module, subject: Subject) -> Tensor | None:
    """Return whether each of the measured images (n,) is classified correctly; None without labels."""
    if subject.labels is None:
        return None
    return predictions(outputs(network, subject.batches())).cpu() == subject.labels.cpu()
