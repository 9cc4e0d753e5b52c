"""What an advice works with: the network, the images, and how a remedy is carried out, judged and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.own_model.fine_tuning import (
    STATISTICS_IMAGES,
    CropSource,
    FineTuning,
    batch_norms,
    fine_tune,
    with_new_statistics,
)
from poolbench.own_model.model import OwnModel, path_in
from poolbench.own_model.pace import AnswerTime, Clock, answer_time
from poolbench.own_model.passes import LEAST_BATCH, Answers, Passes, as_float
from poolbench.own_model.remedies import WINDOWS, Remedy
from poolbench.own_model.shifts import STEPS, Labels, window, windows
from poolbench.own_model.sites import swapped
from poolbench.own_model.trials import Trials
from poolbench.own_model.windowed import windowed
from poolbench.registry import pools

CROPS = 1 + len(STEPS)
"""Crops of each judged image: the centre and the eight steps."""
TRAINING_COST = 3.0
"""Time of a training step over that of a forward pass."""
MARGIN = 2.0
"""How much longer a kind of remedy may take than guessed before the first of its kind has run."""


@dataclass(frozen=True)
class AdviceOptions:
    """What is tried: names of pools, seeds and epochs of fine-tuning; ``batch``: images per pass (None: the default).

    ``judged`` images are kept out of everything and judge all remedies; of the others at most ``learnt`` are used.
    """

    pools: Sequence[str]
    epochs: int
    seeds: int
    judged: int
    learnt: int
    batch: int | None = None


@dataclass
class Bench:
    """The network, the images that judge it and those that may train it, and what has been found so far."""

    model: OwnModel
    judged: Passes
    labels: Labels
    training: Passes
    training_labels: Labels
    classes: int
    options: AdviceOptions
    trials: Trials
    clock: Clock
    say: Callable[[str], None]
    cost: dict[str, float] = field(default_factory=dict)
    """Seconds that a trial of a kind took."""
    times: dict[tuple[str, tuple[str, ...], int], AnswerTime] = field(default_factory=dict)
    """Times of an answer by pool, sites and window: the weights do not matter."""
    tried: Sequence[Remedy] = ()
    windowed: dict[Remedy, Answers] = field(default_factory=dict)
    reference: Tensor | None = None
    """The decisions (n,) of the network as it is."""

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return 3, self.judged.size, self.judged.size


def expected_seconds(bench: Bench, remedy: Remedy) -> float:
    """Return the seconds that a trial takes: those of the last of its kind, else a guess from the network as it is."""
    if remedy.kind in bench.cost:
        return bench.cost[remedy.kind]
    if remedy in bench.windowed:
        return 0.0
    judging = bench.cost.get("none")
    if judging is None:  # it was on disk
        began = time.perf_counter()
        few = bench.judged.on(bench.judged.larger[: bench.judged.batch])
        few.answers([window(few.size)])
        judging = CROPS * (time.perf_counter() - began) * len(bench.judged) / len(few)
        bench.cost["none"] = judging
    passes = 1.0
    if remedy.is_at_test_time:
        passes = (max(WINDOWS) + 2) ** 2 / CROPS
    if remedy.is_trained:
        crops = bench.options.epochs * len(bench.training)
        passes += TRAINING_COST * crops / (CROPS * len(bench.judged))
    return MARGIN * judging * passes


def with_pools(bench: Bench, remedy: Remedy) -> tuple[nn.Module, Sequence[str]]:
    """Return the network with the remedy's pools, and what was changed in words."""
    if not remedy.pool:
        return bench.model.network, ()
    paths = [path_in(path) for path in remedy.sites]
    return swapped(bench.model.network, pools.resolve(remedy.pool), bench.in_shape, paths)


def judge(bench: Bench, remedy: Remedy, network: nn.Module, seed: int | None) -> pd.DataFrame:
    """Return one row per judged image: flips (share of steps), change (of the probability) and decision."""
    if remedy.is_at_test_time:
        if not bench.windowed:
            # All at once: they look at the same crops.
            together = [one for one in bench.tried if one.is_at_test_time]
            bench.windowed.update(zip(together, windowed(bench.judged, together), strict=True))
        answers = bench.windowed[remedy]
    else:
        if remedy.kind in ("statistics", "fine_tuned") and remedy.pool and batch_norms(network):
            network = with_new_statistics(network, _statistics_crops(bench))
        if seed is not None:
            network = _trained(bench, remedy, network, seed)
        answers = bench.judged.of(network).answers(windows(bench.judged.size))
    return pd.DataFrame(
        {
            "flips": answers.flipped.double().mean(dim=0).numpy(),
            "change": answers.change.mean(dim=0).numpy(),
            "decision": answers.decisions[0].numpy(),
        }
    )


def with_right(bench: Bench, table: pd.DataFrame) -> pd.DataFrame:
    expected = bench.labels if bench.labels is not None else bench.reference
    assert expected is not None
    return table.assign(right=(table["decision"].to_numpy() == expected.numpy()).astype("float64"))


def _statistics_crops(bench: Bench) -> Iterator[Tensor]:
    """Yield batches (b, 3, size, size) of random crops of images that do not judge, each image once."""
    passes = bench.training
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(passes), generator=generator)[:STATISTICS_IMAGES]
    margin = passes.larger.shape[-1] - passes.size
    for chosen in order.split(64):
        if len(chosen) < LEAST_BATCH and len(order) > len(chosen):
            continue  # a short last batch would count as much as the others
        top, left = torch.randint(margin + 1, (2,), generator=generator).tolist()
        crops = passes.larger[chosen][..., top : top + passes.size, left : left + passes.size]
        yield as_float(crops.to(passes.device))


def _trained(bench: Bench, remedy: Remedy, network: nn.Module, seed: int) -> nn.Module:
    assert bench.training_labels is not None
    passes = bench.training
    source = CropSource(passes.larger.to(passes.device), bench.training_labels.to(passes.device), passes.size)
    options = FineTuning(bench.options.epochs)

    began = bench.clock.spent
    done: list[int] = []

    def on_epoch(epoch: int) -> None:
        bench.say(f"{remedy.name}: seed {seed}, epoch {epoch} of {options.epochs} ({bench.clock.spent:.0f} s)")
        done.append(epoch)
        if epoch < options.epochs:
            # The state of the training is kept for another time.
            bench.clock.check((bench.clock.spent - began) / len(done))

    return fine_tune(network, source, options, seed, passes.device, bench.trials.kept(remedy, seed), on_epoch)


def time_of(bench: Bench, remedy: Remedy, network: nn.Module) -> AnswerTime:
    """Return the time of an answer for one image; remedies at test time classify several crops in one pass.

    Networks that differ by their weights alone take the same time, so each graph is timed once.
    """
    key = remedy.pool, remedy.sites, remedy.window
    if key not in bench.times:
        device = bench.judged.device
        one = torch.zeros(1, *bench.in_shape, device=device)
        images = one.expand(max(1, remedy.window**2), -1, -1, -1).contiguous()
        bench.times[key] = answer_time(network.to(device), images, bench.model.network, one)
    return bench.times[key]
