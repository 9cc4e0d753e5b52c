"""A trained network taken apart: maps replaced, blocks skipped, probes on every stage, and the maps in numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import Cell, Measurement, UsageError, derive_seed
from poolbench.data import Dataset, Split, to_pixels
from poolbench.engine import build_model
from poolbench.engine.evaluation import loss_of
from poolbench.measures import maps as map_measures
from poolbench.measures.classification import predictions
from poolbench.measures.probes import gridded, probe_accuracy
from poolbench.measures.ranks import rank_correlation
from poolbench.recording import outputs
from poolbench_tasks.depth_ablation import DepthOptions
from poolbench_tasks.depth_ablation.montage import montage

Array = np.ndarray[Any, Any]

SMALLEST_JUDGED = 8
"""Side in px from which on the noise of maps is compared with that of the image."""


@dataclass(frozen=True)
class Stages:
    """A network in parts: ``blocks`` map stage k - 1 to stage k, ``end`` the last stage to logits (b, classes)."""

    blocks: Sequence[nn.Module]
    end: nn.Module

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Return the maps (n, c, h, w) of every stage; stage 0 is the normalised image."""
        found = [outputs(self.blocks[0], pixels)]
        for block in self.blocks[1:]:
            found.append(outputs(block, found[-1]))
        return found

    def last_maps(self, maps: Tensor, stage: int) -> Tensor:
        """Return the maps of the last stage for those of ``stage``."""
        return reduce(lambda found, block: outputs(block, found), self.blocks[stage + 1 :], maps)

    def accuracy(self, maps: Tensor, stage: int, labels: Tensor) -> float:
        """Return the accuracy if ``stage`` had these maps."""
        logits = outputs(self.end, self.last_maps(maps, stage))
        return float((predictions(logits) == labels).double().mean())


def stages_of(model: nn.Module) -> Stages:
    """Return the parts of a cell's network; raise UsageError unless it is a ``strided_net``.

    ``blocks[0]`` is the normalisation.
    """
    network = getattr(model, "network", None)
    names = [name for name, _ in network.named_children()] if isinstance(network, nn.Sequential) else []
    ends = [index for index, name in enumerate(names) if name.startswith("dropout")]
    if not ends or not isinstance(network, nn.Sequential):
        raise UsageError("depth_ablation takes networks apart into blocks and knows those of strided_net alone")
    starts = [0, *(end + 1 for end in ends[:-1])]
    blocks = [network[start : end + 1] for start, end in zip(starts, ends, strict=True)]
    return Stages([model.get_submodule("normalize"), *blocks], network[ends[-1] + 1 :])


def noise(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Return maps with each unit's values shuffled over images and positions: the same histogram, no information."""
    n, c, height, width = maps.shape
    values = maps.transpose(0, 1).flatten(1)
    order = torch.rand(values.shape, generator=generator).argsort(1).to(maps.device)
    return values.gather(1, order).view(c, n, height, width).transpose(0, 1)


def unit_mean(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Return maps in which each unit has its mean value at all positions of all images."""
    return maps.mean((0, 2, 3), keepdim=True).expand_as(maps)


def shuffled(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Return maps with the positions of each image shuffled, all units alike."""
    n, c, height, width = maps.shape
    order = torch.rand((n, height * width), generator=generator).argsort(1).to(maps.device)
    return maps.flatten(2).gather(2, order[:, None].expand(n, c, -1)).view_as(maps)


def map_mean(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Return maps that have their own mean at every position."""
    return maps.mean((2, 3), keepdim=True).expand_as(maps)


REPLACEMENTS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "noise": noise,
    "mean": unit_mean,
    "shuffled": shuffled,
    "map_mean": map_mean,
}


def skipped(before: Tensor, like: Tensor) -> Tensor:
    """Return a block's input in the shape of its output: averaged to its size, channels repeated to its number."""
    units = like.shape[1]
    small = F.adaptive_avg_pool2d(before, (like.shape[2], like.shape[3]))
    return small.repeat(1, -(-units // small.shape[1]), 1, 1)[:, :units]


def measure(cell: Cell, options: DepthOptions, model: nn.Module, data: Dataset) -> Measurement:
    """Return accuracy and what taking the network apart shows; table ``stages`` has a row per stage.

    Raises UsageError for a network that is no ``strided_net``.
    """
    assert isinstance(data.train, Split)  # folds are of stored images
    stages, untrained = stages_of(model), stages_of(build_model(cell, data, str(data.test.images.device)))
    fitted, shown = data.train.sample(options.probe_images), data.test.sample(options.images)
    seen, read, drawn = (stages.maps(_pixels(split, cell)) for split in (data.test, fitted, shown))
    before, for_probe = (untrained.maps(_pixels(split, cell)) for split in (data.test, fitted))
    chosen = untrained.maps(_pixels(shown, cell))
    rows = []
    for stage, maps in enumerate(seen):
        row: dict[str, float] = {"stage": stage, "units": maps.shape[1], "side": maps.shape[2]}
        row |= _looks(drawn[stage], shown.labels)
        row["noise_untrained"] = _noise(chosen[stage])
        row["noise_image"] = _noise(F.adaptive_avg_pool2d(drawn[0], (maps.shape[2], maps.shape[3])))
        row["probe"] = probe_accuracy(gridded(read[stage]), fitted.labels, gridded(maps), data.test.labels)
        row["probe_untrained"] = probe_accuracy(
            gridded(for_probe[stage]), fitted.labels, gridded(before[stage]), data.test.labels
        )
        if stage:
            row |= dict(_without(stages, stage, seen, read, fitted.labels, data.test.labels, cell.seed))
        rows.append(row)
    table = pd.DataFrame(rows)
    logits = outputs(stages.end, seen[-1])
    accuracy = float((predictions(logits) == data.test.labels).double().mean())
    metrics = {"accuracy": accuracy, "loss": float(loss_of(logits, data.test.labels)), **summary(table, accuracy)}
    return Measurement(
        metrics,
        {"stages": table.drop(columns="smooth_units")},
        {"feature_maps": montage([maps[0].cpu().numpy() for maps in drawn])},
    )


def _pixels(split: Split, cell: Cell) -> Tensor:
    return to_pixels(split.images, cell.train.mask)


def _noise(maps: Tensor) -> float:
    return float(map_measures.spatial_entropy(maps).nanmean())


def _looks(maps: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the maps of a stage in numbers; shares are of its units."""
    entropy = map_measures.spatial_entropy(maps).cpu()
    separation = map_measures.class_separation(maps, labels).cpu()
    both = torch.isfinite(entropy) & torch.isfinite(separation)
    return {
        "noise": float(entropy.nanmean()),
        "dead": float(map_measures.dead_units(maps).double().mean()),
        "duplicates": float(map_measures.duplicate_units(maps).double().mean()),
        "rank": map_measures.effective_rank(maps) / maps.shape[1],
        "separation": float(separation.nanmean()),
        "smooth_units": rank_correlation((1 - entropy[both]).numpy(), separation[both].numpy()),
    }


def _without(
    stages: Stages,
    stage: int,
    seen: Sequence[Tensor],
    read: Sequence[Tensor],
    fitted: Tensor,
    labels: Tensor,
    seed: int,
) -> Iterator[tuple[str, float]]:
    """Yield the accuracy with the maps of a stage replaced, and with its block skipped."""
    for name, replace in REPLACEMENTS.items():
        generator = torch.Generator().manual_seed(derive_seed(seed, f"{name} of stage {stage}"))
        yield f"with_{name}", stages.accuracy(replace(seen[stage], generator), stage, labels)
    bypassed, for_probe = (skipped(maps[stage - 1], maps[stage]) for maps in (seen, read))
    yield "skipped", stages.accuracy(bypassed, stage, labels)
    last, last_for_probe = (gridded(stages.last_maps(maps, stage)) for maps in (bypassed, for_probe))
    yield "skipped_probe", probe_accuracy(last_for_probe, fitted, last, labels)


def summary(table: pd.DataFrame, accuracy: float) -> dict[str, float]:
    """Return the metrics of a network from its table of stages; NaN where it has too few stages."""
    blocks = table[table["stage"] > 0]
    columns = {str(name): blocks[name].to_numpy(dtype=np.float64) for name in blocks}
    last = {name: float(values[-1]) for name, values in columns.items()}
    units, within = columns["units"], columns["smooth_units"]
    # How much noisier the maps look than the image does at their size. On smaller maps everything looks like noise.
    judged = columns["side"] >= SMALLEST_JUDGED
    excess, untrained = (
        columns[name][judged] - columns["noise_image"][judged] for name in ("noise", "noise_untrained")
    )
    return {
        "probe_last": last["probe"],
        "probe_gain": last["probe"] - float(columns["probe"][-3]) if len(units) > 2 else float("nan"),
        "excess_change": _change(excess),
        "excess_change_untrained": _change(untrained),
        "smooth_stages": rank_correlation(1 - columns["noise"], columns["probe"]),
        "smooth_units": float(within[np.isfinite(within)].mean()) if np.isfinite(within).any() else float("nan"),
        "layout_cost": accuracy - last["with_shuffled"],
        "last_block_gain": last["probe"] - last["skipped_probe"],
        "dead": float(columns["dead"] @ units / units.sum()),
        "duplicates": float(columns["duplicates"] @ units / units.sum()),
        "rank_last": last["rank"],
    }


def _change(by_stage: Array) -> float:
    """Return the value of the last stage minus that of the first; NaN for one stage."""
    return float(by_stage[-1] - by_stage[0]) if len(by_stage) > 1 else float("nan")
