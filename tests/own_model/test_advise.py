"""Remedies tried on small networks: what each computes, by other routes; stored results, budgets, interruptions."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.engine.checkpoint import unpack
from poolbench.engine.networks import OneNetwork
from poolbench.files import DamagedFile, StorageError
from poolbench.own_model import advise as module
from poolbench.own_model.advise import advise
from poolbench.own_model.bench import AdviceOptions
from poolbench.own_model.fine_tuning import CropSource, FineTuning, Kept, fine_tune, with_new_statistics
from poolbench.own_model.images import list_images, read_images
from poolbench.own_model.model import OwnModel, Preprocessing
from poolbench.own_model.pace import Clock
from poolbench.own_model.passes import Passes
from poolbench.own_model.remedies import AS_IT_IS, Remedy
from poolbench.own_model.shifts import STEPS
from poolbench.own_model.trials import Trials
from poolbench.own_model.windowed import windowed

SIZE = 32
OPTIONS = AdviceOptions(("blur3",), epochs=1, seeds=3, judged=8, learnt=100)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, 2, 1),
        nn.ReLU(),
    )
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()


def own(part: nn.Module) -> OwnModel:
    whole = nn.Sequential()
    whole.add_module("network", part)
    preprocessing = Preprocessing(SIZE, (0.0,) * 3, (1.0,) * 3, "nearest")
    return OwnModel("made.py:network", whole.eval().requires_grad_(False), "made here", preprocessing, 3, False)


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("kind", ["averaged", "confident"])
def test_a_remedy_at_test_time_is_what_brute_force_gives(
    noise: Callable[..., Tensor], passes_of: Callable[..., Passes], kind: Any, window: int
) -> None:
    larger, part = noise(3, 37), network()
    other = Remedy("averaged", window=5 - window)
    _, found = windowed(passes_of(part, larger, SIZE), [other, Remedy(kind, window=window)])
    start = -((window - 1) // 2)
    for index, (dy, dx) in enumerate(((0, 0), *STEPS)):
        seen = []
        for down in range(start, start + window):
            for right in range(start, start + window):
                top, left = 2 + dy + down, 2 + dx + right
                with torch.no_grad():
                    seen.append(part(larger[:, :, top : top + SIZE, left : left + SIZE].float() / 255))
        logits = torch.stack(seen)
        if kind == "averaged":
            expected = logits.mean(0).argmax(1)
        else:
            best = logits.softmax(-1).amax(-1).argmax(0)
            expected = logits[best, torch.arange(3)].argmax(1)
        assert found.decisions[index].tolist() == expected.tolist()


def test_crops_are_those_of_the_rows(noise: Callable[..., Tensor]) -> None:
    larger = noise(5, 37)
    source = CropSource(larger, torch.arange(5), SIZE)
    rows = source.draw(torch.Generator().manual_seed(0), shuffle=True)
    assert sorted(rows[:, 0].tolist()) == [0, 1, 2, 3, 4]
    assert int(rows[:, 1:].min()) >= 0
    assert int(rows[:, 1:].max()) <= 5
    images, labels = source.render(rows)
    for image, label, (index, top, left) in zip(images, labels, rows.tolist(), strict=True):
        assert int(label) == index
        assert torch.equal(image, larger[index, :, top : top + SIZE, left : left + SIZE])


def test_new_statistics_are_the_means_over_all_batches() -> None:
    part = network()
    batches = [torch.rand(4, 3, SIZE, SIZE) for _ in range(3)]
    found = with_new_statistics(part, iter(batches))
    with torch.no_grad():
        maps = [part[0](batch) for batch in batches]
    means = torch.stack([one.mean(dim=(0, 2, 3)) for one in maps]).mean(0)
    variances = torch.stack([one.var(dim=(0, 2, 3)) for one in maps]).mean(0)
    torch.testing.assert_close(found[1].running_mean, means)
    torch.testing.assert_close(found[1].running_var, variances)
    assert not torch.equal(part[1].running_mean, found[1].running_mean)
    assert not found.training
    assert found[1].momentum == part[1].momentum


def kept(store: dict[str, bytes]) -> Kept:
    return Kept("a", lambda: store.get("state"), lambda content: store.update(state=content))


def source() -> CropSource:
    # Two classes that a network tells apart at once: dark and bright.
    labels = torch.arange(40) % 2
    larger = (labels * 150 + 20)[:, None, None, None].expand(40, 3, 37, 37).to(torch.uint8)
    noise = torch.randint(0, 40, larger.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return CropSource(larger + noise, labels, SIZE)


def test_an_interrupted_training_ends_with_the_same_weights() -> None:
    options, part = FineTuning(3, batch_size=8), network()
    whole = fine_tune(part, source(), options, 5, "cpu", kept({}))
    store: dict[str, bytes] = {}

    def stop(epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(part, source(), options, 5, "cpu", kept(store), stop)
    epochs: list[int] = []
    resumed = fine_tune(part, source(), options, 5, "cpu", kept(store), epochs.append)
    assert epochs == [3]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    # A damaged file costs the epochs, not the command.
    again = fine_tune(part, source(), options, 5, "cpu", kept({"state": b"torn"}))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize(("accuracies", "best"), [((0.5, 0.6, 0.9, 0.7), 2), ((0.9, 0.6, 0.8, 0.9), 0)])
def test_the_weights_of_the_best_epoch_are_kept_and_the_start_is_one(
    monkeypatch: pytest.MonkeyPatch, accuracies: Sequence[float], best: int
) -> None:
    scores = iter(accuracies)
    monkeypatch.setattr(OneNetwork, "evaluate", lambda self, split, mask: [(0.5, next(scores))])
    part, store = network(), {}
    weights = [{name: value.clone() for name, value in part.state_dict().items()}]

    def note(epoch: int) -> None:
        weights.append(dict(unpack(store["state"], "a", "cpu").state["model"]))

    found = fine_tune(part, source(), FineTuning(3, batch_size=8), 0, "cpu", kept(store), note).state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights[best].items())
    assert not all(torch.equal(found[name], value) for name, value in weights[3].items())
    assert all(torch.equal(weights[0][name], value) for name, value in part.state_dict().items())


@pytest.fixture
def folder(tmp_path: Path, drawn: Callable[..., Path]) -> Path:
    return drawn(tmp_path / "data", per_class=14, side=40)


def run(folder: Path, out: Path, options: AdviceOptions = OPTIONS, clock: Clock | None = None) -> Any:
    listing = list_images(folder)
    model = own(network())
    images = read_images(listing, model.preprocessing, None, lambda done, total: None)
    said: list[str] = []
    found = advise(
        model, images, "cpu", options, lambda setting: Trials(out, setting), said.append, clock or Clock(None)
    )
    return found, said


def test_everything_is_tried_once_and_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, said = run(folder, tmp_path / "out")
    names = [one.name for one in found.outcomes]
    assert names[0] == "as it is"
    assert "blur3 at all strides, BatchNorm estimated anew" in names
    assert "as it is, fine-tuned" in names
    assert not found.not_tried
    assert (found.judged_images, found.trained_images) == (8, 34)
    assert [len(one.trial.tables) for one in found.outcomes if one.trial.remedy.is_trained] == [3] * sum(
        one.trial.remedy.is_trained for one in found.outcomes
    )
    assert not list((tmp_path / "out").glob("*.pt"))
    swapped = next(one for one in found.outcomes if one.trial.remedy.kind == "swapped")
    assert any(line.startswith("0: blur3 at") for line in swapped.trial.changed)
    # The max pool, whose windows do not overlap, keeps its maximum.
    assert any(line.startswith("3: max_blur3 at") for line in swapped.trial.changed)

    def unexpected(*_: Any) -> Any:
        raise AssertionError("all results are on disk")

    monkeypatch.setattr(module, "judge", unexpected)
    again, _ = run(folder, tmp_path / "out")
    assert [one.flips for one in again.outcomes] == [one.flips for one in found.outcomes]
    assert [one.right_change for one in again.outcomes] == [one.right_change for one in found.outcomes]
    assert any("fine-tuned" in line for line in said)


def test_a_damaged_result_is_computed_again(folder: Path, tmp_path: Path) -> None:
    found, _ = run(folder, tmp_path / "out", clock=Clock(1e-9))
    for path in (tmp_path / "out").glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    again, said = run(folder, tmp_path / "out", clock=Clock(1e-9))
    assert [line for line in said if "is damaged: its content has changed" in line and "computed again" in line]
    assert found.sentences[0] == "No remedy was tried."
    assert "no time left" in found.sentences[-1]
    assert [one.flips for one in again.outcomes] == [one.flips for one in found.outcomes]


def stored(folder: Path, count: int = 20) -> tuple[Trials, pd.DataFrame, Path]:
    """Return a folder of results with the table of the network as it is, that table, and its file."""
    trials = Trials(folder, {"judged": count})
    flips = torch.arange(count, dtype=torch.float64).numpy() / count
    table = pd.DataFrame({"flips": flips, "change": flips.astype("float32"), "decision": range(count)})
    trials.write(AS_IT_IS, None, table)
    (path,) = folder.glob("*.parquet")
    return trials, table, path


def test_no_flipped_bit_of_a_result_is_read(tmp_path: Path) -> None:
    trials, table, path = stored(tmp_path)
    content = path.read_bytes()
    for place in range(0, 8 * len(content), 7):  # 7 and 8 have no common divisor: every bit of a byte
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(DamagedFile, match="its content has changed"):
            trials.read(AS_IT_IS)
    trials.write(AS_IT_IS, None, table)
    found = trials.read(AS_IT_IS)
    assert found is not None
    assert found.equals(table)
    # Damaged files are replaced, not kept beside the new ones.
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.rename(columns={"decision": "other"}),
        lambda table: table.iloc[1:],
        lambda table: table.assign(decision=table["decision"].astype(str)),
        lambda table: table.assign(flips=float("nan")),
        lambda table: table.assign(more=1),
    ],
)
def test_a_result_of_another_form_is_damaged(tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    trials, table, path = stored(tmp_path)
    path.unlink()
    trials.write(AS_IT_IS, None, change(table))
    with pytest.raises(DamagedFile, match="flips, change, decision of 20 images"):
        trials.read(AS_IT_IS)


def test_a_pipe_in_the_place_of_a_result_is_not_waited_for(tmp_path: Path) -> None:
    trials, _, path = stored(tmp_path)
    path.unlink()
    os.mkfifo(path)
    os.mkfifo(tmp_path / f"{trials.key(AS_IT_IS, 0)}.pt")
    with pytest.raises(DamagedFile, match="it is no file"):
        trials.read(AS_IT_IS)
    assert trials.kept(AS_IT_IS, 0).read() is None


def test_another_setting_is_another_result(folder: Path, tmp_path: Path) -> None:
    first = Trials(tmp_path, {"epochs": 1})
    assert first.key(AS_IT_IS) != Trials(tmp_path, {"epochs": 2}).key(AS_IT_IS)
    assert first.key(AS_IT_IS) != first.key(Remedy("fine_tuned"))
    assert first.key(Remedy("fine_tuned"), 0) != first.key(Remedy("fine_tuned"), 1)


def test_the_budget_is_kept(folder: Path, tmp_path: Path) -> None:
    # Each look at the clock takes a second.
    ticks = iter(range(10_000))
    found, _ = run(folder, tmp_path / "out", OPTIONS, Clock(16.0, lambda: float(next(ticks))))
    assert len(found.outcomes) > 1
    assert found.outcomes[0].name == "as it is"
    assert found.not_tried
    assert set(found.not_tried.values()) == {"no time left"}
    # The same command with more time tries the rest.
    assert not run(folder, tmp_path / "out")[0].not_tried


def test_images_without_labels_are_compared_with_the_network_as_it_is(
    tmp_path: Path, drawn: Callable[..., Path]
) -> None:
    found, _ = run(drawn(tmp_path / "data", per_class=20, classes=(), side=40), tmp_path / "out")
    assert found.outcomes[0].right.mean == 1.0
    assert not any(one.trial.remedy.is_trained for one in found.outcomes)
    assert found.sentences


@pytest.mark.parametrize(("pool", "message"), [("dense", "does not subsample"), ("blurr3", "unknown pool")])
def test_a_pool_that_cannot_be_tried_is_refused_first(folder: Path, tmp_path: Path, pool: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(folder, tmp_path / "out", replace(OPTIONS, pools=(pool,)))
    assert not (tmp_path / "out").exists()


def test_other_code_with_the_same_weights_is_another_model(folder: Path, tmp_path: Path) -> None:
    class Shown(nn.Module):
        """Decides by the network, or by its negative: the tensors and the structure do not say which."""

        sign = 1.0

        def __init__(self) -> None:
            super().__init__()
            self.part = network()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.sign * self.part(x)
            return logits

    def tried(sign: float) -> Any:
        Shown.sign = sign
        model = own(Shown())
        images = read_images(list_images(folder), model.preprocessing, None, lambda done, total: None)
        clock = Clock(1e-9)
        return advise(model, images, "cpu", OPTIONS, lambda setting: Trials(tmp_path / "out", setting), print, clock)

    first, second = tried(1.0), tried(-1.0)
    decisions = [found.outcomes[0].trial.tables[0]["decision"].tolist() for found in (first, second)]
    assert decisions[0] != decisions[1]


def test_networks_of_one_graph_take_the_same_time(folder: Path, tmp_path: Path) -> None:
    found, _ = run(folder, tmp_path / "out")
    times: dict[Any, set[float]] = {}
    for one in found.outcomes:
        remedy = one.trial.remedy
        times.setdefault((remedy.pool, remedy.sites, remedy.window), set()).add(one.trial.time.ratio.mean)
    assert all(len(values) == 1 for values in times.values())
    assert len(times) > 3
    tuned = next(one for one in found.outcomes if one.name == "as it is, fine-tuned")
    assert tuned.slowdown == found.outcomes[0].slowdown == 1.0


def test_a_short_last_batch_does_not_stop_the_statistics(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    # 65 images to learn from: a batch of 64 and one image, whose map of one pixel has no variance.
    folder = drawn(tmp_path / "data", per_class=25, side=40)
    layers = (nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 16), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    torch.manual_seed(0)
    model = own(nn.Sequential(*layers, nn.Linear(8, 3)))
    images = read_images(list_images(folder), model.preprocessing, None, lambda done, total: None)
    options = replace(OPTIONS, judged=10)
    found = advise(model, images, "cpu", options, lambda setting: Trials(tmp_path, setting), print, Clock(None))
    assert found.trained_images == 65
    assert "blur3 at all strides, BatchNorm estimated anew" in [one.name for one in found.outcomes]


def test_too_few_images_of_a_class_are_told(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    found, _ = run(drawn(tmp_path / "data", per_class=2, side=40), tmp_path / "out", replace(OPTIONS, judged=2))
    assert "at least 2 images of every class" in found.not_tried["fine-tuning"]
    assert "fine-tuning" in found.sentences[-1]


def test_a_model_that_fails_as_it_is_ends_the_advice(folder: Path, tmp_path: Path) -> None:
    part = network()
    part.append(nn.Linear(7, 3))
    model = own(part)
    images = read_images(list_images(folder), model.preprocessing, None, lambda done, total: None)
    with pytest.raises(UsageError, match="the model fails on these images"):
        advise(model, images, "cpu", OPTIONS, lambda setting: Trials(tmp_path, setting), print, Clock(None))


def test_a_folder_that_cannot_be_written_ends_the_advice(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("no folder")
    with pytest.raises(StorageError):
        run(folder, tmp_path / "out")


def test_the_images_that_learn_are_as_many_as_asked(folder: Path, tmp_path: Path) -> None:
    found, _ = run(folder, tmp_path / "out", replace(OPTIONS, judged=8, learnt=20), Clock(1e-9))
    assert (found.judged_images, found.trained_images) == (8, 20)
