"""Building and training: determinism, streams, the numbers an epoch reports."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from poolbench.core import CHOICES, Cell, Component, TrainConfig, UsageError
from poolbench.data import Dataset, Split, images_dataset, to_pixels
from poolbench.engine import build_model, evaluate, fit
from poolbench.engine.evaluation import loss_of
from poolbench.engine.loop import TrainingDiverged


def dataset(count: int = 60, classes: int = 3) -> Dataset:
    """Images whose class is the brightness of one corner."""
    generator = torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        labels = torch.arange(n) % classes
        pixels = torch.randint(0, 60, (n, 1, 12, 12), generator=generator)
        pixels[:, :, 4:8, 4:8] += (labels * 80).view(-1, 1, 1, 1)
        return Split(pixels.clamp(max=255).to(torch.uint8), labels)

    names = tuple(str(label) for label in range(classes))
    return images_dataset("corners", names, split(count), split(30), "made here")


CELL = Cell(
    "b", Component("corners"), Component("simple_conv", {"width": 4, "hidden": 8}), Component("max"),
    Component("flatten"), "plain", 0, TrainConfig(epochs=3, batch_size=16, learning_rate=3e-3),
)  # fmt: skip


def trained(cell: Cell, data: Dataset) -> tuple[nn.Module, list[dict[str, float]]]:
    model, rows = build_model(cell, data, "cpu"), []
    fit(model, data, cell.train, cell.seed, on_epoch=rows.append)
    return model, rows


def same(first: nn.Module, second: nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_equal_seeds_give_equal_weights_whatever_the_global_stream_did() -> None:
    data = dataset()
    first, rows = trained(CELL, data)
    torch.rand(1000)
    second, again = trained(CELL, data)
    assert same(first, second)
    assert rows == again
    assert not same(first, trained(replace(CELL, seed=1), data)[0])


def test_training_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(CELL, dataset())
    assert torch.equal(torch.rand(3), expected)


def test_networks_learn_and_rows_say_so() -> None:
    data = dataset(300)
    cell = replace(CELL, train=replace(CELL.train, epochs=8, learning_rate=1e-2))
    model, rows = trained(cell, data)
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert rows[-1]["val_accuracy"] > 0.9
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert not model.training
    loss, accuracy = evaluate(model, data.test)
    assert (loss, accuracy) == (rows[-1]["val_loss"], rows[-1]["val_accuracy"])


def test_an_epoch_is_that_of_a_plain_loop() -> None:
    data = dataset()
    assert isinstance(data.train, Split)
    cell = replace(CELL, train=replace(CELL.train, epochs=2, shuffle=False))
    model, rows = trained(cell, data)
    plain = build_model(cell, data, "cpu")
    optimizer = torch.optim.Adam(plain.parameters(), lr=3e-3)
    for epoch in range(2):
        total = right = 0.0
        for start in range(0, 60, 16):
            x = data.train.images[start : start + 16].float() / 255
            y = data.train.labels[start : start + 16]
            logits = plain(x)
            loss = nn.CrossEntropyLoss()(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
            right += float((logits.argmax(1) == y).sum())
        assert rows[epoch]["train_loss"] == pytest.approx(total / 60, rel=1e-4)
        assert rows[epoch]["train_accuracy"] == pytest.approx(right / 60)
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_weight_decay_spares_one_dimensional_parameters() -> None:
    data = dataset()
    cell = replace(CELL, train=replace(CELL.train, epochs=1, weight_decay=0.5))
    decayed, plain = (
        trained(cell, data)[0],
        trained(replace(cell, train=replace(cell.train, weight_decay=0.0)), data)[0],
    )
    norms = [sum(float(p.detach().norm()) for p in m.parameters() if p.dim() > 1) for m in (decayed, plain)]
    assert norms[0] < norms[1]


def test_rotated_training_differs_and_repeats() -> None:
    data = dataset()
    cell = replace(CELL, train=replace(CELL.train, augment=("rotation",)))
    assert same(trained(cell, data)[0], trained(cell, data)[0])
    assert not same(trained(cell, data)[0], trained(CELL, data)[0])


def test_divergence_is_an_error_that_says_when() -> None:
    data = dataset()
    model = build_model(CELL, data, "cpu")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="in epoch 1"):
        fit(model, data, CELL.train, 0)


def test_losses_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    expected = (0.6931472 + 0.1269280) / 2
    assert float(loss_of(logits, torch.tensor([0, 0]))) == pytest.approx(expected, abs=1e-6)
    # One logit z is two logits (0, z).
    one = torch.tensor([[0.0], [-2.0]])
    assert float(loss_of(one, torch.tensor([0, 0]))) == pytest.approx(expected, abs=1e-6)


def test_smoothed_losses_by_hand() -> None:
    # Of two classes with smoothing 0.2 the right one has 0.9 of the mass.
    logits = torch.tensor([[1.0, 3.0]])
    right, wrong = -torch.log_softmax(logits, 1)[0, [1, 0]]
    expected = float(0.9 * right + 0.1 * wrong)
    assert float(loss_of(logits, torch.tensor([1]), 0.2)) == pytest.approx(expected, abs=1e-6)
    assert float(loss_of(torch.tensor([[2.0]]), torch.tensor([1]), 0.2)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_every_optimiser_is_that_of_a_plain_loop(optimizer: str, schedule: str) -> None:
    data = dataset()
    assert isinstance(data.train, Split)
    train = replace(CELL.train, epochs=2, shuffle=False, optimizer=optimizer, schedule=schedule, label_smoothing=0.1)
    model, _ = trained(replace(CELL, train=train), data)
    plain = build_model(CELL, data, "cpu")
    kinds: dict[str, torch.optim.Optimizer] = {
        "adam": torch.optim.Adam(plain.parameters(), lr=3e-3),
        "adamw": torch.optim.AdamW(plain.parameters(), lr=3e-3, weight_decay=0),
        "sgd": torch.optim.SGD(plain.parameters(), lr=3e-3, momentum=0.9, nesterov=True),
    }
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(kinds[optimizer], T_max=8)
    for _ in range(2):
        for start in range(0, 60, 16):
            x, y = to_pixels(data.train.images[start : start + 16]), data.train.labels[start : start + 16]
            kinds[optimizer].zero_grad()
            nn.CrossEntropyLoss(label_smoothing=0.1)(plain(x), y).backward()
            kinds[optimizer].step()
            if schedule == "cosine":
                scheduler.step()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_bfloat16_trains_in_bfloat16_and_keeps_float32_weights() -> None:
    data = dataset(300)
    half = replace(CELL, train=replace(CELL.train, epochs=8, learning_rate=1e-2, precision="bfloat16"))
    seen: set[torch.dtype] = set()
    model = build_model(half, data, "cpu")
    convolution = model.get_submodule("network.conv1")
    convolution.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype) if model.training else None)
    rows: list[dict[str, float]] = []
    fit(model, data, half.train, half.seed, on_epoch=rows.append)
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert rows[-1]["val_accuracy"] > 0.9


def test_networks_take_pixels_and_normalise_them() -> None:
    data = dataset()
    model = build_model(CELL, data, "cpu")
    normalise = model.get_submodule("normalize")
    assert isinstance(data.train, Split)
    out: Tensor = normalise(to_pixels(data.train.images))
    assert float(out.mean()) == pytest.approx(0, abs=1e-5)
    assert float(out.std(correction=0)) == pytest.approx(1, abs=1e-4)
    unit = images_dataset("corners", data.classes, data.train, data.test, "made here", normalize="unit")
    unchanged = build_model(CELL, unit, "cpu").get_submodule("normalize")
    assert torch.equal(unchanged(to_pixels(data.train.images)), to_pixels(data.train.images))


def test_the_disc_blackens_the_corners() -> None:
    pixels = to_pixels(torch.full((1, 1, 12, 12), 255, dtype=torch.uint8), mask="disc")
    assert pixels[0, 0, 0, 0] == 0
    assert pixels[0, 0, 6, 6] == 1


def test_evaluation_uses_the_transform() -> None:
    data = dataset()
    model, _ = trained(CELL, data)
    seen: list[Tensor] = []

    def black(pixels: Tensor) -> Tensor:
        seen.append(pixels)
        return torch.zeros_like(pixels)

    _, accuracy = evaluate(model, data.test, transform=black)
    assert sum(len(part) for part in seen) == 30
    assert accuracy == pytest.approx(1 / 3)


def test_frozen_batch_norms_keep_the_statistics_of_the_first_epoch() -> None:
    data = dataset()
    moving = replace(
        CELL,
        architecture=Component("all_convolutional", {"width": 2}),
        pool=Component("decimate"),
        head=Component("avg"),
    )
    frozen = replace(moving, train=replace(moving.train, batch_norm="frozen"))

    def statistics(cell: Cell, epochs: int) -> Tensor:
        model, _ = trained(replace(cell, train=replace(cell.train, epochs=epochs)), data)
        return model.get_submodule("network.norm1").get_buffer("running_mean")

    assert torch.equal(statistics(frozen, 1), statistics(moving, 1))
    assert torch.equal(statistics(frozen, 3), statistics(frozen, 1))
    assert not torch.equal(statistics(moving, 3), statistics(moving, 1))
    # What is frozen is how it trains, not the network: weights of either fit into the other.
    assert build_model(frozen, data, "cpu").state_dict().keys() == build_model(moving, data, "cpu").state_dict().keys()


def test_training_images_are_those_of_the_seed_and_no_others() -> None:
    """Images outside the subset change nothing, one inside does; all images are the plain training."""
    data = dataset()
    assert isinstance(data.train, Split)
    cell = replace(CELL, train=replace(CELL.train, train_images=20))
    first, rows = trained(cell, data)
    inside = data.train.subset(20, CELL.seed)

    def blackened(where: Tensor) -> Dataset:
        images = data.train.images.clone()  # type: ignore[union-attr]
        images[where] = 0
        return replace(data, train=replace(data.train, images=images))  # type: ignore[type-var]

    assert same(first, trained(cell, blackened(~inside))[0])
    assert not same(first, trained(cell, blackened(inside.nonzero()[0]))[0])
    assert not same(first, trained(replace(cell, seed=1), data)[0])
    # Means over the 20 images of the subset.
    assert all(row["train_accuracy"] * 20 == pytest.approx(round(row["train_accuracy"] * 20)) for row in rows)
    everything = replace(CELL, train=replace(CELL.train, train_images=60))
    assert same(trained(CELL, data)[0], trained(everything, data)[0])
    with pytest.raises(UsageError, match="train_images is 1 to 60, or 0 for all, got 61"):
        trained(replace(CELL, train=replace(CELL.train, train_images=61)), data)


def test_every_image_of_a_subset_is_seen_once_an_epoch() -> None:
    data, seen = dataset(), []

    class Recording(Split):
        def render(self, rows: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(rows[:, 0])
            return super().render(rows)

    assert isinstance(data.train, Split)
    source = Recording(data.train.images, data.train.labels)
    cell = replace(CELL, train=replace(CELL.train, train_images=20, epochs=2))
    trained(cell, replace(data, train=source))
    orders = torch.cat(seen).view(2, 20)
    wanted = data.train.subset(20, CELL.seed).nonzero().flatten()
    assert all(torch.equal(order.sort().values, wanted) for order in orders)
    assert not torch.equal(orders[0], orders[1])
