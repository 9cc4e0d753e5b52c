"""Networks that are trained for the page: how many attempts, on which images, and what is said about them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from poolbench import engine
from poolbench.core import DataLocation, TrainConfig
from poolbench.data import load_dataset
from poolbench.inspect import live
from poolbench.inspect.live import Recipe, own_scenes, recipes
from poolbench.registry import architectures, datasets


def small(enough: float) -> Recipe:
    return Recipe(
        "shapes",
        ("avg",),
        datasets.resolve("shapes", {"canvas": 32, "samples": 256, "test_samples": 50}),
        architectures.resolve("shape_net", {"num_pooling": 1}),
        TrainConfig(epochs=2, batch_size=32, learning_rate=2e-2),
        enough,
    )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Two pools."""
    monkeypatch.setattr(live, "POOLS", ("max", "avg"))
    return monkeypatch


def test_a_network_that_learns_at_once_is_trained_once(few: pytest.MonkeyPatch) -> None:
    few.setattr(live, "recipes", lambda: (small(0.0),))
    counts: list[tuple[int, int]] = []
    (scene,) = own_scenes(lambda done, total: counts.append((done, total)))
    assert counts == [(done, 4) for done in range(5)]
    assert [(one.name, one.head, one.images) for one in scene.networks] == [("max", "avg", 50), ("avg", "avg", 50)]
    assert all("seed 0" in one.detail for one in scene.networks)
    assert "2 epochs of 256 images" in scene.note
    assert "0% of 200 held-out images" in scene.note


def test_attempts_end_and_the_best_one_is_kept(few: pytest.MonkeyPatch) -> None:
    few.setattr(live, "recipes", lambda: (small(1.1),))
    found = iter([0.6, 0.9, 0.7, 0.55, 0.6, 0.5])
    few.setattr(engine, "evaluate", lambda model, split: (0.0, next(found, 0.4)))
    counts: list[tuple[int, int]] = []
    (scene,) = own_scenes(lambda done, total: counts.append((done, total)))
    # Two networks, three seeds, two epochs.
    assert counts[-1] == (12, 12)
    assert [one.detail.partition(".")[0][-6:] for one in scene.networks] == ["seed 1", "seed 1"]
    # Chance is 0.5 and the best 0.9: from 0.7 on.
    assert [one.learned for one in scene.networks] == [True, False]


def test_equal_commands_train_equal_networks(few: pytest.MonkeyPatch) -> None:
    few.setattr(live, "recipes", lambda: (small(0.0),))
    first, second = (own_scenes(lambda done, total: None) for _ in range(2))
    assert first == second


def test_networks_are_judged_on_images_that_they_were_not_trained_with() -> None:
    data = load_dataset("mnist_sample", DataLocation(""))
    tuned = live._tuned(data)
    assert len(tuned.test) == live.JUDGED

    def all_of(images: object) -> set[bytes]:
        return {image.numpy().tobytes() for image in images}  # type: ignore[attr-defined]

    trained = all_of(tuned.train.images)  # type: ignore[attr-defined]
    assert len(trained) == 1600
    assert not trained & all_of(tuned.test.images)
    assert not trained & all_of(data.test.images)


def test_the_recipes_are_the_two_scenes_of_the_documentation() -> None:
    shapes, digits = recipes()
    assert (shapes.heads, digits.heads) == (("avg", "max"), ("avg",))
    assert (shapes.architecture.name, shapes.dataset.options["canvas"]) == ("shape_net", 48)
    assert (digits.architecture.name, digits.dataset.options["pad"]) == ("fashion_convnet", 2)
    assert digits.train == replace(shapes.train, learning_rate=1e-2, augment=("shift",))
