"""Every remedy tried on the user's network and images, within a budget of time; stored results are not repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from poolbench.core import UsageError
from poolbench.files import DamagedFile, StorageError
from poolbench.own_model.advice import Advice, Trial, choose, outcomes_of, sentences_of, untried_sentences
from poolbench.own_model.answers import percent
from poolbench.own_model.attribution import attribute
from poolbench.own_model.bench import AdviceOptions, Bench, expected_seconds, judge, time_of, with_pools, with_right
from poolbench.own_model.evaluation import data_facts, model_facts, stride_of
from poolbench.own_model.fine_tuning import FineTuning, batch_norms
from poolbench.own_model.images import Images, balanced_subset
from poolbench.own_model.model import OwnModel, network_digest, own_path
from poolbench.own_model.pace import Clock, OutOfTime
from poolbench.own_model.passes import Counter, Passes, default_batch
from poolbench.own_model.remedies import AS_IT_IS, Possible, Remedy, remedies
from poolbench.own_model.results import SiteEffect
from poolbench.own_model.shifts import windows
from poolbench.own_model.sites import downsamplings
from poolbench.own_model.trials import Trials
from poolbench.pooling import pool_class
from poolbench.registry import pools

ATTRIBUTED_IMAGES = 250
OUT_OF_TIME = "no time left"
NO_TRAINING = "fine-tuning takes at least 2 images of every class to learn from"


def advise(
    model: OwnModel,
    images: Images,
    device: str,
    options: AdviceOptions,
    trials: Callable[[dict[str, Any]], Trials],
    say: Callable[[str], None],
    clock: Clock,
) -> Advice:
    """Return what is to be done about unstable decisions of a network.

    ``trials(setting)`` returns where results are kept; ``say`` gets a line per remedy. A trial is not started if it
    would end after the budget of the clock, by what the last one of its kind took, or else by a guess. Which stride is
    to blame and how the network does as it is are always measured. Raises UsageError for fewer than two images, for
    pools that do not exist or do not subsample, and for a network that fails as it is.
    """
    if len(images) < 2:
        raise UsageError(f"advice needs images to judge and images to learn from, got {len(images)}; give more")
    check_pools(options.pools)
    bench = _bench(model, images, device, options, trials, say, clock)
    effects, stem = _attribution(bench)
    not_tried = {f"{effect.path} ({effect.kind})": effect.refused for effect in effects if effect.refused}
    possible = _possible(bench)
    if bench.training_labels is not None and not possible.labels:
        not_tried["fine-tuning"] = NO_TRAINING
    bench.tried = remedies(effects, stem, options.pools, possible)
    found = list(_trials(bench, not_tried))
    strata = None if bench.labels is None else bench.labels.numpy()
    outcomes = outcomes_of(found, strata)
    chosen = choose(outcomes, strata, bench.labels is not None)
    return Advice(
        model_facts(model, stride_of(bench.judged)),
        data_facts(images),
        len(bench.judged),
        len(bench.training),
        options.epochs,
        effects,
        outcomes,
        chosen,
        [*sentences_of(outcomes, chosen, bench.labels is not None), *untried_sentences(not_tried)],
        not_tried,
        bench.clock.spent,
    )


def _trials(bench: Bench, not_tried: dict[str, str]) -> Iterator[Trial]:
    """Yield the trials of all remedies; note those that there is no time for, or that fail, in ``not_tried``."""
    for remedy in bench.tried:
        try:
            yield _trial(bench, remedy)
        except OutOfTime:
            not_tried[remedy.name] = OUT_OF_TIME
        except StorageError:
            raise
        except Exception as error:
            # The network's own code runs here, with layers that it was not written for.
            if remedy == AS_IT_IS:
                raise _failed(error) from error
            reason = _reason(error)
            bench.say(f"{remedy.name}: failed: {reason}")
            not_tried[remedy.name] = reason


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
) -> Bench:
    own, count = images.listing.labels, max(1, min(options.judged, len(images) // 2))
    labels = None if own is None else torch.from_numpy(own)
    judged = torch.from_numpy(balanced_subset(own, count, len(images), "judged images"))
    free = np.setdiff1d(np.arange(len(images)), judged.numpy())
    chosen = balanced_subset(None if own is None else own[free], min(options.learnt, len(free)), len(free), "learning")
    rest = torch.from_numpy(free[chosen])
    size = model.preprocessing.size
    batch = options.batch or default_batch(size, device)
    whole = Passes(model.network, images.larger, size, device, batch, Counter(lambda done, total: None))
    looked_at = whole.on(images.larger[judged])
    setting = {
        "model": network_digest(model.network),
        "answers": _behaviour(looked_at),
        "images": images.digest,
        "pixels": hashlib.sha256(images.larger.numpy().tobytes()).hexdigest()[:16],
        "preprocessing": asdict(model.preprocessing),
        "judged": len(judged),
        "learnt": len(rest),
        "training": asdict(FineTuning(options.epochs)),
        "device": torch.device(device).type,
        "torch": torch.__version__,
    }
    return Bench(
        model,
        looked_at,
        None if labels is None else labels[judged],
        whole.on(images.larger[rest]),
        None if labels is None else labels[rest],
        len(images.listing.classes),
        options,
        trials(setting),
        clock,
        say,
    )


def _behaviour(passes: Passes) -> str:
    """Return the digest of the decisions on some images: the code of a network is no part of its tensors."""
    few = passes.on(passes.larger[:64])
    try:
        answers = few.answers(windows(few.size))
    except Exception as error:
        raise _failed(error) from error
    return hashlib.sha256(answers.decisions.numpy().tobytes()).hexdigest()[:16]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _failed(error: Exception) -> UsageError:
    """Return the error that ends an advice: the network as it is fails."""
    return UsageError(f"the model fails on these images: {_reason(error)}; repair it")


def _attribution(bench: Bench) -> tuple[list[SiteEffect], frozenset[str]]:
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


def _possible(bench: Bench) -> Possible:
    margin = bench.judged.larger.shape[-1] - bench.judged.size
    known = bench.training_labels
    trainable = known is not None and bench.training.larger.dtype == torch.uint8
    if known is not None and trainable:
        # Of every class an image to train with and one to validate.
        trainable = int(known.bincount(minlength=bench.classes).min()) >= 2
    return Possible(bool(batch_norms(bench.model.network)), trainable, margin)


def _trial(bench: Bench, remedy: Remedy) -> Trial:
    """Return the trial of a remedy, from disk where it is there; raise OutOfTime if there is no time for it."""
    network, changed = with_pools(bench, remedy)
    tables: list[pd.DataFrame] = []
    for seed in range(bench.options.seeds) if remedy.is_trained else [None]:
        table = _stored_table(bench, remedy, seed)
        if table is None:
            try:
                table = _new_table(bench, remedy, network, seed, missing=max(1, 2 - len(tables)))
            except OutOfTime:
                # Two seeds are enough for an interval.
                if len(tables) < 2:
                    raise
                break
        if remedy == AS_IT_IS:
            bench.reference = torch.from_numpy(table["decision"].to_numpy(copy=True))
        tables.append(with_right(bench, table))
    trial = Trial(remedy, tables, time_of(bench, remedy, network), changed)
    flips, right = (float(trial.block(column).mean()) for column in ("flips", "right"))
    what = "accuracy" if bench.labels is not None else "agreement"
    numbers = f"{percent(flips)} of steps change the decision, {what} {percent(right)}"
    bench.say(f"{remedy.name}: {numbers} ({bench.clock.spent:.0f} s)")
    return trial


def _stored_table(bench: Bench, remedy: Remedy, seed: int | None) -> pd.DataFrame | None:
    """Return the table of a remedy on disk, None where there is none; say so if there is a damaged one."""
    try:
        return bench.trials.read(remedy, seed)
    except DamagedFile as damaged:
        bench.say(f"{remedy.name}: '{damaged.path}' is damaged: {damaged.reason}; it is computed again")
        return None


def _new_table(bench: Bench, remedy: Remedy, network: nn.Module, seed: int | None, missing: int) -> pd.DataFrame:
    """Return the table of a remedy, computed and stored; ``missing`` seeds are needed before any of them counts."""
    if remedy != AS_IT_IS:
        bench.clock.check(expected_seconds(bench, remedy) * (missing if remedy.is_trained else 1))
    began = bench.clock.spent
    table = judge(bench, remedy, network, seed)
    bench.trials.write(remedy, seed, table)
    bench.cost[remedy.kind] = bench.clock.spent - began
    return table
