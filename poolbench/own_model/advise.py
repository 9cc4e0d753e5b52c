"""Every remedy tried on the user's network and images, within a budget of time; stored results are not repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import quantiles
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.engine.loop import TrainingDiverged
from poolbench.measures.cost import measure_inference
from poolbench.measures.shift import total_stride
from poolbench.own_model.advice import Advice, Trial, choose, outcomes_of, sentences_of
from poolbench.own_model.answers import percent
from poolbench.own_model.attribution import attribute
from poolbench.own_model.evaluation import data_facts, model_facts
from poolbench.own_model.fine_tuning import (
    STATISTICS_IMAGES,
    CropSource,
    FineTuning,
    batch_norms,
    fine_tune,
    with_new_statistics,
)
from poolbench.own_model.images import Images, balanced_subset
from poolbench.own_model.model import OwnModel, network_digest, own_path, path_in
from poolbench.own_model.passes import Answers, Counter, Passes, as_float, default_batch
from poolbench.own_model.remedies import AS_IT_IS, Possible, Remedy, remedies
from poolbench.own_model.results import SiteEffect, Timing
from poolbench.own_model.shifts import Labels, window, windows
from poolbench.own_model.sites import downsamplings, swapped
from poolbench.own_model.trials import Trials
from poolbench.own_model.windowed import windowed
from poolbench.pooling import pool_class
from poolbench.registry import pools

ATTRIBUTED_IMAGES = 250
OUT_OF_TIME = "no time left"
TIMED_TURNS, TIMED_PASSES = 5, 6


@dataclass(frozen=True)
class AdviceOptions:
    """What is tried: names of pools, seeds and epochs of fine-tuning, ``budget`` in seconds (None: no limit).

    ``judged`` images, and no more, are kept out of everything and judge all remedies.
    """

    pools: Sequence[str]
    epochs: int
    seeds: int
    judged: int
    budget: float | None = None
    batch: int | None = None


class Clock:
    """The time that is left. ``clock`` returns seconds."""

    def __init__(self, budget: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._budget, self._began = clock, budget, clock()

    @property
    def spent(self) -> float:
        return self._clock() - self._began

    def has(self, seconds: float) -> bool:
        """Return whether that many seconds are left."""
        return self._budget is None or self.spent + seconds <= self._budget


@dataclass
class _Bench:
    """The network, the images that judge it and those that may train it, and what has been found so far."""

    model: OwnModel
    judged: Passes
    labels: Labels
    training: Passes
    training_labels: Labels
    options: AdviceOptions
    trials: Trials
    clock: Clock
    say: Callable[[str], None]
    cost: dict[str, float] = field(default_factory=dict)
    """Seconds that the last trial of a kind took."""
    tried: Sequence[Remedy] = ()
    windowed: dict[Remedy, Answers] = field(default_factory=dict)
    reference: Tensor | None = None
    """The decisions (n,) of the network as it is."""

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return 3, self.judged.size, self.judged.size


def advise(
    model: OwnModel,
    images: Images,
    device: str,
    options: AdviceOptions,
    trials: Callable[[dict[str, Any]], Trials],
    say: Callable[[str], None],
    clock: Clock | None = None,
) -> Advice:
    """Return what is to be done about unstable decisions of a network.

    ``trials(setting)`` returns where results are kept; ``say`` gets a line per remedy. A trial is not started if it
    would end after the budget, by the time that the last one of its kind took. Raises UsageError for fewer than two
    images, and for pools that do not exist or do not subsample.
    """
    if len(images) < 2:
        raise UsageError(f"advice needs images to judge and images to learn from, got {len(images)}; give more")
    check_pools(options.pools)
    bench = _bench(model, images, device, options, trials, say, clock or Clock(options.budget))
    effects, stem = _attribution(bench)
    found: list[Trial] = []
    not_tried: dict[str, str] = {}
    bench.tried = remedies(effects, stem, options.pools, _possible(bench))
    for remedy in bench.tried:
        trial, reason = _trial(bench, remedy)
        if trial is None:
            not_tried[remedy.name] = reason
        else:
            found.append(trial)
    strata = None if bench.labels is None else bench.labels.numpy()
    outcomes = outcomes_of(found, strata)
    chosen = choose(outcomes, strata)
    return Advice(
        model_facts(model, total_stride(model.network, _example(bench))),
        data_facts(images),
        len(bench.judged),
        len(bench.training),
        options.epochs,
        effects,
        outcomes,
        chosen,
        sentences_of(outcomes, chosen, bench.labels is not None),
        not_tried,
        bench.clock.spent,
    )


def _example(bench: _Bench) -> Tensor:
    """Return a network input (3, size, size)."""
    _, larger = next(bench.judged.batches())
    return window(bench.judged.size)(larger, 0)[0]


def check_pools(names: Sequence[str]) -> None:
    """Raise UsageError for a pool that does not exist or that cannot take the place of a stride."""
    for name in names:
        if pool_class(pools.resolve(name).name).keeps_size:
            raise UsageError(f"pool '{name}' does not subsample, so it cannot replace a stride; leave it out")


def _bench(
    model: OwnModel,
    images: Images,
    device: str,
    options: AdviceOptions,
    trials: Callable[[dict[str, Any]], Trials],
    say: Callable[[str], None],
    clock: Clock,
) -> _Bench:
    own, count = images.listing.labels, max(1, min(options.judged, len(images) // 2))
    labels = None if own is None else torch.from_numpy(own)
    judged = torch.from_numpy(balanced_subset(own, count, len(images), "judged images"))
    rest = torch.ones(len(images), dtype=torch.bool)
    rest[judged] = False
    size = model.preprocessing.size
    batch = options.batch or default_batch(size, device)
    whole = Passes(model.network, images.larger, size, device, batch, Counter(lambda done, total: None))
    setting = {
        "model": network_digest(model.network),
        "images": images.digest,
        "preprocessing": asdict(model.preprocessing),
        "judged": len(judged),
        "epochs": options.epochs,
        "device": torch.device(device).type,
        "torch": torch.__version__,
    }
    return _Bench(
        model,
        whole.on(images.larger[judged]),
        None if labels is None else labels[judged],
        whole.on(images.larger[rest]),
        None if labels is None else labels[rest],
        options,
        trials(setting),
        clock,
        say,
    )


def _attribution(bench: _Bench) -> tuple[list[SiteEffect], frozenset[str]]:
    """Return the effect of every downsampling on some of the images that do not judge, and the paths of the stem."""
    known, count = bench.training_labels, min(ATTRIBUTED_IMAGES, len(bench.training))
    own = None if known is None else known.numpy()
    index = torch.from_numpy(balanced_subset(own, count, len(bench.training), "attribution"))
    few = bench.training.on(bench.training.larger[index])
    labels = None if known is None else known[index]
    bench.say(f"which stride is to blame, on {count} images")
    sites = downsamplings(bench.model.network, bench.in_shape)
    stem = frozenset(own_path(site.path) for site in sites if site.is_stem)
    return attribute(few, sites, few.answers(windows(few.size)), labels), stem


def _possible(bench: _Bench) -> Possible:
    margin = bench.judged.larger.shape[-1] - bench.judged.size
    trainable = bench.training_labels is not None and bench.training.larger.dtype == torch.uint8
    return Possible(bool(batch_norms(bench.model.network)), trainable, margin)


def _trial(bench: _Bench, remedy: Remedy) -> tuple[Trial | None, str]:
    """Return the trial of a remedy, or None with the reason why there is none."""
    try:
        network, changed, left = _swapped(bench, remedy)
        tables = []
        for seed in range(bench.options.seeds) if remedy.is_trained else [None]:
            table = bench.trials.read(remedy, seed)
            if table is None:
                if remedy != AS_IT_IS and not bench.clock.has(bench.cost.get(remedy.kind, 0.0)):
                    break
                began = bench.clock.spent
                table = _judged(bench, remedy, network, seed)
                bench.trials.write(remedy, seed, table)
                bench.cost[remedy.kind] = bench.clock.spent - began
            if remedy == AS_IT_IS:
                bench.reference = torch.from_numpy(table["decision"].to_numpy(copy=True))
            tables.append(_with_right(bench, table))
        if not tables or (remedy.is_trained and len(tables) < 2):
            return None, OUT_OF_TIME
        trial = Trial(remedy, tables, *_timing(bench, remedy, network), changed, left)
    except (UsageError, TrainingDiverged, RuntimeError) as error:
        bench.say(f"{remedy.name}: failed: {error}")
        return None, " ".join(str(error).split())[:160]
    flips = sum(float(table["flips"].mean()) for table in tables) / len(tables)
    right = sum(float(table["right"].mean()) for table in tables) / len(tables)
    what = "accuracy" if bench.labels is not None else "agreement"
    numbers = f"{percent(flips)} of steps change the decision, {what} {percent(right)}"
    bench.say(f"{remedy.name}: {numbers} ({bench.clock.spent:.0f} s)")
    return trial, ""


def _swapped(bench: _Bench, remedy: Remedy) -> tuple[nn.Module, Sequence[str], Sequence[str]]:
    """Return the network with the remedy's pools, what was changed and what was left alone, in words."""
    if not remedy.pool:
        return bench.model.network, (), ()
    paths = [path_in(path) for path in remedy.sites]
    return swapped(bench.model.network, pools.resolve(remedy.pool), bench.in_shape, paths)


def _judged(bench: _Bench, remedy: Remedy, network: nn.Module, seed: int | None) -> pd.DataFrame:
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


def _with_right(bench: _Bench, table: pd.DataFrame) -> pd.DataFrame:
    expected = bench.labels if bench.labels is not None else bench.reference
    assert expected is not None
    return table.assign(right=(table["decision"].to_numpy() == expected.numpy()).astype("float64"))


def _statistics_crops(bench: _Bench) -> Iterator[Tensor]:
    """Yield batches (b, 3, size, size) of random crops of images that do not judge, each image once."""
    passes = bench.training
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(passes), generator=generator)[:STATISTICS_IMAGES]
    margin = passes.larger.shape[-1] - passes.size
    for chosen in order.split(64):
        top, left = torch.randint(margin + 1, (2,), generator=generator).tolist()
        crops = passes.larger[chosen][..., top : top + passes.size, left : left + passes.size]
        yield as_float(crops.to(passes.device))


def _trained(bench: _Bench, remedy: Remedy, network: nn.Module, seed: int) -> nn.Module:
    assert bench.training_labels is not None
    passes = bench.training
    source = CropSource(passes.larger.to(passes.device), bench.training_labels.to(passes.device), passes.size)
    options = FineTuning(bench.options.epochs)

    def on_epoch(epoch: int) -> None:
        bench.say(f"{remedy.name}: seed {seed}, epoch {epoch} of {options.epochs} ({bench.clock.spent:.0f} s)")

    return fine_tune(network, source, options, seed, passes.device, bench.trials.kept(remedy, seed), on_epoch)


def _timing(bench: _Bench, remedy: Remedy, network: nn.Module) -> tuple[Timing, float]:
    """Return the time of an answer for one image, and its ratio to that of the network as it is.

    Remedies at test time classify several crops in one pass. Both networks are timed in turn, and the shortest times
    compare: other work on the machine only ever adds to a time.
    """
    crops = max(1, remedy.window**2)
    images = torch.zeros(crops, *bench.in_shape, device=bench.judged.device)
    network = network.to(bench.judged.device)
    own: list[float] = []
    reference: list[float] = []
    for _ in range(TIMED_TURNS):
        own += measure_inference(network, images, TIMED_PASSES).times_ms
        reference += measure_inference(bench.model.network, images[:1], TIMED_PASSES).times_ms
    low, middle, high = quantiles(own, n=4)
    return Timing(1, middle, low, high, len(own)), 1.0 if remedy == AS_IT_IS else min(own) / min(reference)
