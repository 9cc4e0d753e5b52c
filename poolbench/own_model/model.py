"""The user's network: built by name, filled with weights, checked on an image of its size."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.engine import Normalize
from poolbench.engine.state_dicts import one_line
from poolbench.engine.state_dicts import read_weights as read_weights
from poolbench.registry import TIMM, architectures
from poolbench.shift_map import named_network

TORCHVISION = "torchvision:"
UNTRAINED = "random (untrained)"
OF_THE_CODE = "set by the model's own code"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOST_CLASSES = 100_000


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input: crop of ``size`` px, mean and std per channel, PIL's filter name."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class Request:
    """What the user asked for. None: the model's own value.

    ``raw`` networks get the tensors of the user's own transform, without normalisation.
    """

    spec: str
    weights: Path | None = None
    num_classes: int | None = None
    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    raw: bool = False


@dataclass(frozen=True)
class OwnModel:
    """A checked network: inputs (b, 3, size, size) -> logits (b, outputs), in eval mode on its device.

    Inputs are pixels in [0, 1]; the normalisation is part of the network, and the user's module is at ``network`` of
    it. ``weights`` says where its weights are from.
    """

    spec: str
    network: nn.Module
    weights: str
    preprocessing: Preprocessing
    outputs: int
    raw: bool

    @property
    def description(self) -> str:
        """The preprocessing in words."""
        used = self.preprocessing
        if self.raw:
            return f"the user's transform, then crops of {used.size} px"
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (used.mean, used.std))
        return f"crops of {used.size} px, {used.interpolation} resizing, mean {mean}, standard deviation {std}"

    @property
    def is_untrained(self) -> bool:
        return self.weights == UNTRAINED


def path_in(own: str) -> str:
    """Return a module's path in :class:`OwnModel`, from its path as the user knows it."""
    return f"network.{own}"


def own_path(path: str) -> str:
    """Return a module's path as the user knows it, from its path in :class:`OwnModel`."""
    return path.removeprefix("network.")


def network_digest(network: nn.Module) -> str:
    """Return the digest of a network's structure and of all its tensors."""
    summary = hashlib.sha256(repr(network).encode())
    for name, value in network.state_dict().items():
        summary.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return summary.hexdigest()


class ChannelsLast(nn.Module):
    """Images (b, c, h, w) in channels-last memory format: convolutions are a fifth faster on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)


def load_model(request: Request, classes: int | None, device: str) -> OwnModel:
    """Return the network that was asked for; ``classes`` is the number of class folders, None without labels.

    A model of timm or torchvision is built for ``num_classes`` outputs, else for the class folders, else for what the
    weights hold. Its weights are those of a file, else pretrained ones if the local cache has them and they fit, else
    random ones drawn with a fixed seed. Raises UsageError for whatever does not fit.
    """
    spec, wanted = request.spec, request.num_classes or classes
    state = None if request.weights is None else read_weights(request.weights)
    torch.manual_seed(0)
    if spec.startswith((TIMM, TORCHVISION)):
        build = _timm if spec.startswith(TIMM) else _torchvision
        network, weights, preprocessing = build(spec.partition(":")[2], wanted, state)
    else:
        network, weights, preprocessing = _from_code(spec)
    if state is not None:
        fill(network, state, str(request.weights))
        weights = str(request.weights)
    preprocessing = _chosen(preprocessing, request)
    normalize = nn.Identity() if request.raw else Normalize(preprocessing.mean, preprocessing.std)
    whole = nn.Sequential(OrderedDict(layout=nn.Identity(), normalize=normalize, network=network))
    whole = whole.to(device).eval().requires_grad_(False)
    images = torch.zeros(2, 3, preprocessing.size, preprocessing.size, device=device)
    outputs = _number_of_outputs(whole, images, spec)
    _compare_outputs(request, outputs, classes)
    _choose_layout(whole, images)
    return OwnModel(spec, whole, weights, preprocessing, outputs, request.raw)


def _chosen(found: Preprocessing, request: Request) -> Preprocessing:
    """Return the preprocessing with the user's size, mean and std in place of the model's."""
    given = {name: getattr(request, name) for name in ("size", "mean", "std")}
    return replace(found, **{name: value for name, value in given.items() if value is not None})


def _timm(
    name: str, num_classes: int | None, state: Mapping[str, Tensor] | None
) -> tuple[nn.Module, str, Preprocessing]:
    """Return timm's model of that name, where its weights are from, and its preprocessing."""
    import timm

    architectures.check(TIMM + name)
    config: Any = timm.get_pretrained_cfg(name)
    cached = None if state is not None or config is None else _cached_by_hub(config)
    if cached is not None and num_classes not in (None, config.num_classes):
        cached = None  # weights of another number of classes have no classifier for these images

    def build(classes: int | None) -> nn.Module:
        overlay = None if cached is None else {"file": str(cached)}
        made: nn.Module = timm.create_model(
            name, pretrained=cached is not None, pretrained_cfg_overlay=overlay, num_classes=classes
        )
        return made

    network = _sized(build, num_classes, state)
    own: Any = network.pretrained_cfg
    # timm's names are those of PIL's filters, except for "random".
    filter_name = own["interpolation"] if own["interpolation"] in ("nearest", "bilinear", "bicubic") else "bicubic"
    preprocessing = Preprocessing(own["input_size"][-1], tuple(own["mean"]), tuple(own["std"]), filter_name)
    return network, UNTRAINED if cached is None else f"pretrained, from the local cache: {cached.name}", preprocessing


def _cached_by_hub(config: Any) -> Path | None:
    """Return the file of a timm configuration's weights in the local caches of the hub and of torch, None if absent."""
    from huggingface_hub import try_to_load_from_cache

    if config.hf_hub_id:
        for name in filter(None, (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin")):
            found = try_to_load_from_cache(config.hf_hub_id, name)
            if isinstance(found, str):
                return Path(found)
    return _cached_by_torch(config.url)


def _cached_by_torch(url: str | None) -> Path | None:
    path = Path(torch.hub.get_dir()) / "checkpoints" / (url or "").rpartition("/")[2]
    return path if path.is_file() else None


def _torchvision(
    name: str, num_classes: int | None, state: Mapping[str, Tensor] | None
) -> tuple[nn.Module, str, Preprocessing]:
    """Return torchvision's model of that name, where its weights are from, and its preprocessing."""
    from torchvision import models

    if name not in models.list_models(module=models):
        raise UsageError(f"torchvision has no classifier '{name}'; torchvision.models.list_models() lists them")
    pretrained: Any = models.get_model_weights(name).DEFAULT
    cached = None if state is not None else _cached_by_torch(pretrained.url)
    if cached is not None and num_classes not in (None, len(pretrained.meta["categories"])):
        cached = None

    def build(classes: int | None) -> nn.Module:
        count = {} if classes is None else {"num_classes": classes}
        made: nn.Module = models.get_model(name, weights=None if cached is None else pretrained, **count)
        return made

    own = pretrained.transforms()
    preprocessing = Preprocessing(own.crop_size[0], tuple(own.mean), tuple(own.std), own.interpolation.value)
    weights = UNTRAINED if cached is None else f"pretrained, from the local cache: {cached.name}"
    return _sized(build, num_classes, state), weights, preprocessing


def _sized(
    build: Callable[[int | None], nn.Module], num_classes: int | None, state: Mapping[str, Tensor] | None
) -> nn.Module:
    """Return the network for that number of outputs; None: that of the weights, else the model's default."""
    if num_classes is None and state is not None:
        own = build(None).state_dict()
        # The classifier's tensors are those that differ in their first axis alone.
        different = {
            len(state[name])
            for name, value in own.items()
            if name in state and value.dim() and state[name].dim() and state[name].shape != value.shape
            and state[name].shape[1:] == value.shape[1:]
        }  # fmt: skip
        num_classes = different.pop() if len(different) == 1 else None
    if num_classes is not None and not 0 < num_classes <= MOST_CLASSES:
        raise UsageError(
            f"a model of {num_classes:,} classes is not built; give 1 to {MOST_CLASSES:,} or other weights"
        )
    return build(num_classes)


def _from_code(spec: str) -> tuple[nn.Module, str, Preprocessing]:
    """Return the network that the user's code builds, with ImageNet's mean and std unless told otherwise."""
    try:
        network = named_network(spec)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"'{spec}' fails when called: {one_line(error)}; repair the function") from error
    return network, OF_THE_CODE, Preprocessing(224, IMAGENET_MEAN, IMAGENET_STD)


def fill(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict; raise UsageError that names the first keys or shapes that do not fit."""
    own = network.state_dict()
    problems = [
        *(f"'{name}' is missing" for name in own if name not in state),
        *(f"'{name}' is unexpected" for name in state if name not in own),
        *(
            f"'{name}' has the shape {tuple(state[name].shape)} instead of {tuple(value.shape)}"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ),
        *(
            f"'{name}' is of type {state[name].dtype} instead of {value.dtype}"
            for name, value in own.items()
            if name in state and state[name].is_floating_point() != value.is_floating_point()
        ),
    ]
    if problems:
        rest = f" and {len(problems) - 2} more" if len(problems) > 2 else ""
        raise UsageError(
            f"the weights of '{source}' do not fit the model: {', '.join(problems[:2])}{rest}; "
            "give the weights of this model, or its --num-classes"
        )
    network.load_state_dict(state)


def _number_of_outputs(network: nn.Module, images: Tensor, spec: str) -> int:
    """Return the number of logits for images (2, 3, size, size); raise UsageError if the network is no classifier."""
    try:
        with torch.inference_mode():
            logits = network(images)
    except Exception as error:
        shape = "x".join(map(str, images.shape[1:]))
        raise UsageError(f"'{spec}' does not take images of {shape}: {one_line(error)}; give another --size") from error
    if not isinstance(logits, Tensor):
        raise UsageError(
            f"'{spec}' returns a {type(logits).__name__}, not logits (b, classes); give a function whose model returns "
            "the tensor of logits"
        )
    if logits.dim() != 2 or len(logits) != 2 or logits.shape[1] < 1:
        shape = str(tuple(logits.shape))
        raise UsageError(f"'{spec}' returns the shape {shape} for 2 images, not (2, classes); give a classifier")
    return logits.shape[1]


def _choose_layout(whole: nn.Sequential, images: Tensor) -> None:
    """Let the network work on channels-last images if it has convolutions and takes them (Tensor.view does not)."""
    if not any(isinstance(module, nn.Conv2d) for module in whole.modules()):
        return
    whole.to(memory_format=torch.channels_last)
    whole.layout = ChannelsLast()
    try:
        with torch.inference_mode():
            whole(images)
    except RuntimeError:
        whole.to(memory_format=torch.contiguous_format)
        whole.layout = nn.Identity()


def _compare_outputs(request: Request, outputs: int, classes: int | None) -> None:
    """Raise UsageError if the network decides between another number of classes than asked for, or than there are."""
    decided = max(2, outputs)
    for count, what in ((request.num_classes, "--num-classes says"), (classes, "the folder has")):
        if count is not None and count not in (outputs, decided):
            raise UsageError(
                f"'{request.spec}' has {outputs} outputs, but {what} {count} classes; give a model for these classes, "
                "or the images without class folders"
            )
