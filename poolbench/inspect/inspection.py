"""The inspection of a network: stages, class maps, saliency and invariance of its units, in numbers and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from poolbench.analysis.bootstrap import bootstrap_interval
from poolbench.analysis.statistics import Interval
from poolbench.core import UsageError
from poolbench.inspect.class_maps import ClassHead, answer, class_maps, find_class_head
from poolbench.inspect.findings import (
    Inspection,
    Look,
    MapValue,
    NetworkFindings,
    StageFindings,
    Thumbnail,
)
from poolbench.inspect.invariance import measure_invariance
from poolbench.inspect.model_figures import Seen, draw, thumbnail
from poolbench.inspect.saliency import (
    METHODS,
    MOVES,
    Method,
    grad_cam,
    integrated_gradients,
    kept,
    moved,
    occlusion,
    randomised,
)
from poolbench.inspect.stages import Stage, find_stages, measure_units, stage_maps
from poolbench.inspect.subject import Shown, Subject, accuracy_of
from poolbench.inspect.taps import read
from poolbench.measures.classification import predictions, probabilities
from poolbench.own_model.model import own_path
from poolbench.runner.environment import environment

MAP_ELEMENTS = 2**25
"""Elements of the maps of all stages that are kept at once: they bound the number of images behind the units."""
MOVED_IMAGES = 100
"""Images that are moved: each takes seven passes."""
Show = Callable[[int, int], None]


@dataclass
class _Steps:
    """Counts the steps of an inspection: each section of each network, and each saliency map."""

    total: int
    show: Show
    done: int = field(default=0)

    def end(self) -> None:
        self.done += 1
        self.show(self.done, self.total)


def inspect_model(subject: Subject, show: Show) -> Inspection:
    """Return what the networks of a subject see; ``show(done, total)`` is called after each step.

    Raises UsageError for a network without maps, and for pools that change the stages.
    """
    began = time.perf_counter()
    original = next(iter(subject.networks.values()))
    stages = find_stages(original, subject.in_shape)
    if not stages:
        raise UsageError(f"{subject.name} makes no feature maps (b, c, h, w); give a network with convolutions")
    looks = len(subject.networks) * len(subject.shown)
    steps = _Steps(3 * len(subject.networks) + looks + 1, show)
    found, seen = [], []
    for name, network in subject.networks.items():
        _check_stages(name, network, stages, subject)
        findings, sight = _inspect_network(name, network, stages, subject, steps)
        found.append(findings)
        seen.append(sight)
    pictures = draw(subject, stages, found, seen)
    steps.end()
    return Inspection(
        subject.name,
        subject.description,
        subject.weights,
        subject.is_untrained,
        subject.source,
        len(subject),
        subject.classes,
        subject.in_shape,
        tuple(found),
        tuple(pictures),
        _thumbnails(subject, found),
        {key: str(value) for key, value in environment(str(subject.device)).items() if value},
        time.perf_counter() - began,
    )


def _check_stages(name: str, network: nn.Module, stages: Sequence[Stage], subject: Subject) -> None:
    """Raise UsageError unless the network gives maps of the same shapes at the same places."""
    image = subject.shown[0].pixels[None].to(subject.device)
    try:
        maps = read(network, image, [stage.tap for stage in stages])[1]
        fits = all(tuple(one.shape[1:]) == stage.shape for one, stage in zip(maps, stages, strict=True))
    except (AttributeError, KeyError):
        fits = False
    if not fits:
        raise UsageError(
            f"with pool '{name}' the network has other stages, which cannot be set side by side; leave it out"
        )


def _inspect_network(
    name: str, network: nn.Module, stages: Sequence[Stage], subject: Subject, steps: _Steps
) -> tuple[NetworkFindings, Seen]:
    shown = torch.stack([one.pixels for one in subject.shown]).to(subject.device)
    findings = _stage_findings(network, stages, subject, steps)
    head = find_class_head(network, next(subject.batches(2)))
    answered = None if head is None else answer(network, head, subject.batches(), subject.labels)
    accuracy = answered.own if answered is not None else _accuracy(network, subject)
    steps.end()
    logits, maps = _shown_maps(network, stages, shown)
    of_classes = None if head is None else class_maps(network, head, shown)[1].cpu()
    random = None if subject.is_untrained else randomised(network)
    looks, saliency = [], []
    for index, one in enumerate(subject.shown):
        values = None if of_classes is None else of_classes[index]
        look, drawn = _look(network, random, stages, one, subject, logits[index], values)
        looks.append(look)
        saliency.append(drawn)
        steps.end()
    found = NetworkFindings(name, accuracy, findings, _as_user_knows(head), answered, tuple(looks))
    return found, Seen(maps, of_classes, saliency)


def _stage_findings(
    network: nn.Module, stages: Sequence[Stage], subject: Subject, steps: _Steps
) -> tuple[StageFindings, ...]:
    elements = sum(height * width * units for units, height, width in (stage.shape for stage in stages))
    most = max(1, MAP_ELEMENTS // elements)
    units = [measure_units(maps) for maps in stage_maps(network, subject.batches(most), stages)]
    steps.end()
    invariance = measure_invariance(network, stages, subject.batches(MOVED_IMAGES))
    steps.end()
    return tuple(
        StageFindings(own_path(stage.tap.path), stage.shape, stage.is_activation, own, change)
        for stage, own, change in zip(stages, units, invariance, strict=True)
    )


def _accuracy(network: nn.Module, subject: Subject) -> Interval | None:
    right = accuracy_of(network, subject)
    if right is None or subject.labels is None:
        return None
    return bootstrap_interval(right.double().numpy(), subject.labels.cpu().numpy())


def _as_user_knows(head: ClassHead | None) -> ClassHead | None:
    """Return a head with the paths of the user's module."""
    if head is None:
        return None
    tap = type(head.tap)(own_path(head.tap.path), head.tap.call, head.tap.side)
    return ClassHead(tap, head.pool, None if head.linear is None else own_path(head.linear))


def _shown_maps(network: nn.Module, stages: Sequence[Stage], shown: Tensor) -> tuple[Tensor, list[Tensor]]:
    logits, maps = read(network, shown, [stage.tap for stage in stages])
    return logits.cpu(), [one.cpu() for one in maps]


def _look(
    network: nn.Module,
    random: nn.Module | None,
    stages: Sequence[Stage],
    shown: Shown,
    subject: Subject,
    logits: Tensor,
    maps: Tensor | None,
) -> tuple[Look, dict[Method, dict[str, Tensor]]]:
    """Return one network on one image, and its saliency maps by method and version of the image."""
    decision = int(predictions(logits))
    chances = probabilities(logits)
    # The decision first: a saturated network can give two classes the same probability.
    runner_up = next(int(label) for label in chances.argsort(descending=True, stable=True) if int(label) != decision)
    image = shown.pixels.to(subject.device)
    drawn, gap = saliency_maps(network, image, decision, stages[-1])
    anew = {} if random is None else saliency_maps(random, image, decision, stages[-1], moves=())[0]
    numbers = tuple(kept(method, found, anew.get(method, {}).get("original")) for method, found in drawn.items())
    label = None if shown.label is None else subject.class_name(shown.label)
    return (
        Look(
            shown.name,
            label,
            subject.class_name(decision),
            float(chances[decision]),
            subject.class_name(runner_up),
            () if maps is None else map_values(maps, decision, runner_up, shown.label, subject),
            numbers,
            gap,
        ),
        drawn,
    )


def saliency_maps(
    network: nn.Module, image: Tensor, decision: int, stage: Stage, moves: Sequence[str] = tuple(MOVES)
) -> tuple[dict[Method, dict[str, Tensor]], float]:
    """Return {method: {"original" or move: map (h, w)}} of an image (c, h, w), and the gap of integrated gradients.

    All are of the same decision. Grad-CAM is left out where the stage's module runs several times in a pass.
    """
    versions: dict[str, Tensor] = {"original": image}
    versions |= {move: moved(image[None], move)[0] for move in MOVES if move in moves}
    found: dict[Method, dict[str, Tensor]] = {method: {} for method in METHODS}
    gap = 0.0
    for version, pixels in versions.items():
        gradients, own_gap = integrated_gradients(network, pixels, decision)
        gap = own_gap if version == "original" else gap
        found["integrated_gradients"][version] = gradients.cpu()
        if stage.runs_once:
            found["grad_cam"][version] = grad_cam(network, pixels, decision, stage).cpu()
        found["occlusion"][version] = occlusion(network, pixels, decision).cpu()
    return {method: maps for method, maps in found.items() if maps}, gap


def map_values(
    maps: Tensor, decision: int, runner_up: int, label: int | None, subject: Subject
) -> tuple[MapValue, ...]:
    """Return mean and maximum of the class maps (outputs, h, w) of one image that are worth a look."""
    wanted: dict[int, str] = {decision: "decided", runner_up: "runner-up"}
    if label is not None:
        wanted[label] = f"{wanted[label]}, label" if label in wanted else "label"
    if len(maps) == 1:
        wanted = {1: " and ".join(f"{role}: {subject.class_name(index)}" for index, role in wanted.items())}
    return tuple(
        MapValue(role, subject.class_name(index), float(maps[place].mean()), float(maps[place].max()))
        for index, role in wanted.items()
        for place in [0 if len(maps) == 1 else index]
    )


def _thumbnails(subject: Subject, found: Sequence[NetworkFindings]) -> tuple[Thumbnail, ...]:
    """Return the images that excite a listed unit."""
    numbers = {
        number
        for network in found
        for stage in network.stages
        for unit in (*stage.invariance.least, *stage.invariance.most)
        for number in unit.exciting
    }
    return tuple(
        Thumbnail(number, subject.names[number], thumbnail(subject.images[number])) for number in sorted(numbers)
    )
