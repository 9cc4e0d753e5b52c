"""The scenes of a live page, and networks that are trained for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from poolbench.core import Cell, Component, DataLocation, TrainConfig
from poolbench.inspect.live_scene import LiveNetwork, LiveObject, LiveScene
from poolbench.registry import architectures, datasets, heads, pools

if TYPE_CHECKING:
    from torch import nn

    from poolbench.data import Dataset

POOLS = ("max", "avg", "max_blur3", "max_aps", "decimate")
ATTEMPTS = 3  # seeds that are tried until a network is accurate enough
JUDGED = 200  # held-out images that say so
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Recipe:
    """How the networks of an own scene are trained; below an accuracy of ``enough`` another seed is tried."""

    title: str
    heads: Sequence[str]
    dataset: Component
    architecture: Component
    train: TrainConfig
    enough: float


def recipes() -> tuple[Recipe, ...]:
    """Return the own scenes: drawn shapes with the network of the shift experiment, and digits."""
    cycle = TrainConfig(epochs=6, batch_size=32, learning_rate=2e-2, schedule="one_cycle")
    return (
        Recipe(
            "shapes",
            ("avg", "max"),
            datasets.resolve("shapes", {"canvas": 48, "samples": 960, "margin": 14}),
            architectures.resolve("shape_net", {"num_pooling": 2}),
            cycle,
            0.97,
        ),
        Recipe(
            "digits",
            ("avg",),  # a second head would double the time of the command
            datasets.resolve("mnist_sample", {"pad": 2}),
            architectures.resolve("fashion_convnet", {"width": 4}),
            replace(cycle, learning_rate=1e-2, augment=("shift",)),
            0.8,
        ),
    )


def own_scenes(progress: Progress) -> list[LiveScene]:
    """Train a network per scene, pool and head on the CPU, with circular padding; return the scenes.

    ``progress`` gets the epochs done and expected. A network below the recipe's accuracy is trained again from
    another seed, ``ATTEMPTS`` times at most; the best one is kept.
    """
    plans = recipes()
    counter = _Counter(progress, sum(one.train.epochs * len(one.heads) for one in plans) * len(POOLS))
    return [_own_scene(recipe, counter) for recipe in plans]


class _Counter:
    """Counts epochs; further attempts raise the total."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.done, self.total = progress, 0, total
        progress(0, total)

    def add(self, row: object) -> None:
        self.done += 1
        self.progress(self.done, self.total)


def _own_scene(recipe: Recipe, counter: _Counter) -> LiveScene:
    from poolbench.data import load_dataset

    data = load_dataset(recipe.dataset, DataLocation(""), "cpu")
    trained = [(pool, head, *_trained(recipe, data, pool, head, counter)) for head in recipe.heads for pool in POOLS]
    chance, best = 1 / len(data.classes), max(accuracy for *_, accuracy, _ in trained)
    networks = []
    for pool, head, model, accuracy, seed in trained:
        # As analysis.learning judges cells: half of the way from chance to the best.
        learned = accuracy >= chance + (best - chance) / 2
        detail = f"pool {pool}, head {head}, seed {seed}. {pool}: {pools.describe(pool)}"
        networks.append(describe_network(pool, head, model, data, learned, detail))
    train = recipe.train
    moved = " with shifts of up to 4 px" if train.augment else ""
    note = (
        f"The networks were trained for this page: {recipe.architecture.name}, {train.epochs} epochs of "
        f"{len(_tuned(data).train):,} images{moved}, circular padding. Up to "
        f"{ATTEMPTS} seeds were tried until a network was right about {recipe.enough:.0%} of {JUDGED} held-out images; "
        f"the accuracies are those of other images. {about_objects(data)}"
    )
    return build_scene(recipe.title, data, networks, [one[2] for one in trained], note)


def _tuned(data: Dataset) -> Dataset:
    """Return the data set with ``JUDGED`` held-out training images in place of its test images."""
    tuned = data.for_tuning()
    return replace(tuned, test=tuned.test.sample(JUDGED))


def _trained(recipe: Recipe, data: Dataset, pool: str, head: str, counter: _Counter) -> tuple[nn.Module, float, int]:
    """Return the best network of the attempts, its accuracy on the held-out images, and its seed."""
    from poolbench.engine import build_model, evaluate, fit

    tuned = _tuned(data)
    best: tuple[float, nn.Module, int] | None = None
    for seed in range(ATTEMPTS):
        if seed:
            counter.total += recipe.train.epochs
        cell = Cell(
            "live", recipe.dataset, recipe.architecture, pools.resolve(pool), heads.resolve(head), "plain", seed,
            recipe.train, "circular",
        )  # fmt: skip
        model = build_model(cell, data, "cpu")
        fit(model, tuned, recipe.train, seed, counter.add)
        accuracy = evaluate(model, tuned.test)[1]
        if best is None or accuracy > best[0]:
            best = accuracy, model, seed
        if accuracy >= recipe.enough:
            break
    assert best is not None
    accuracy, model, seed = best
    return model.eval(), accuracy, seed


def describe_network(name: str, head: str, model: nn.Module, data: Dataset, learned: bool, detail: str) -> LiveNetwork:
    """Return a network with its program and its accuracy on the test images of ``data``.

    Raises UsageError for a network that a page cannot evaluate (see ``program.export_program``).
    """
    from poolbench.engine import evaluate
    from poolbench.inspect.program import export_program

    program = export_program(model, data.in_shape).config()
    return LiveNetwork(name, head, evaluate(model, data.test)[1], len(data.test), learned, detail, program)


def about_objects(data: Dataset) -> str:
    """Say which objects a scene has; drawn ones were not sampled, images were chosen."""
    from poolbench.inspect.live_objects import HARD, SHIFTS

    first = f"The first object is the one with the most changes of the answer within {SHIFTS} x {SHIFTS} px"
    if data.name == "shapes":
        return f"{first}: others change less or never. Objects between square and circle are in no training."
    return (
        f"{first}. The others are the first test image of each class and the {HARD} of all {len(data.test):,} about "
        "which the first network is least sure: they change more often than most."
    )


def build_scene(
    title: str, data: Dataset, networks: Sequence[LiveNetwork], models: Sequence[nn.Module], note: str
) -> LiveScene:
    """Return a scene with objects of the data set; ``models`` are the networks' modules."""
    from poolbench.inspect.live_objects import drawn_objects, image_objects, most_changes_first

    canvas = data.in_shape
    objects: Sequence[LiveObject]
    objects = drawn_objects(canvas[1]) if data.name == "shapes" else image_objects(data, models[0])
    objects = most_changes_first(objects, models, canvas)
    return LiveScene(title, canvas, data.classes, objects, networks, note)
