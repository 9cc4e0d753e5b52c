"""What an inspection of a network finds: numbers, and pictures as PNG."""

from __future__ import annotations

from dataclasses import dataclass

from poolbench.analysis.statistics import Interval
from poolbench.inspect.class_maps import Answered, ClassHead
from poolbench.inspect.invariance import StageInvariance
from poolbench.inspect.saliency import Kept
from poolbench.inspect.stages import Units


@dataclass(frozen=True)
class StageFindings:
    """The stage of ``shape`` (c, h, w) at the module ``path``; see ``stages.Stage``."""

    path: str
    shape: tuple[int, int, int]
    is_activation: bool
    units: Units
    invariance: StageInvariance


@dataclass(frozen=True)
class MapValue:
    """The class map of one class on one image: its mean and maximum. ``role``: decided, runner-up or label."""

    role: str
    name: str
    mean: float
    maximum: float


@dataclass(frozen=True)
class Look:
    """One network on one image: what it decides, its class maps, and how stable its saliency maps are.

    ``probability`` is that of the decision. ``gap`` is that of :func:`saliency.integrated_gradients`.
    """

    image: str
    label: str | None
    decision: str
    probability: float
    runner_up: str
    class_maps: tuple[MapValue, ...]
    saliency: tuple[Kept, ...]
    gap: float


@dataclass(frozen=True)
class NetworkFindings:
    """One network: its accuracy on the measured images (None without labels), stages, class maps and looks."""

    name: str
    accuracy: Interval | None
    stages: tuple[StageFindings, ...]
    head: ClassHead | None
    answered: Answered | None
    looks: tuple[Look, ...]


@dataclass(frozen=True)
class Picture:
    """A picture of an image: ``section`` is stages, class_maps or saliency; ``name`` is that of its PNG file."""

    section: str
    image: str
    name: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Thumbnail:
    """A measured image by its number, small."""

    number: int
    name: str
    png: bytes


@dataclass(frozen=True)
class Inspection:
    """All that was found about a network and the same network with other pools."""

    name: str
    description: str
    weights: str
    is_untrained: bool
    source: str
    images: int
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    networks: tuple[NetworkFindings, ...]
    pictures: tuple[Picture, ...]
    thumbnails: tuple[Thumbnail, ...]
    environment: dict[str, str]
    seconds: float
