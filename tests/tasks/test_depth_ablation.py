"""The depth task on planted networks, its folds, its presets and its figures."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from poolbench.analysis.effects import group_estimate
from poolbench.analysis.frames import results_frame, varying_fields
from poolbench.analysis.groups import groups_of
from poolbench.core import Cell, Component, DataLocation, Measurement, Metric, Result, UsageError
from poolbench.data import Dataset, Split, images_dataset, load_dataset
from poolbench.data.folds import fold
from poolbench.engine import build_model
from poolbench.measures.ranks import rank_correlation
from poolbench.plots.scene import Scene
from poolbench.registry import benchmarks
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import replica_groups, run_cells
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import grid_cells
from poolbench.task import Benchmark, NoOptions
from poolbench_tasks.depth_ablation import DepthOptions
from poolbench_tasks.depth_ablation.answers import sufficient_depths
from poolbench_tasks.depth_ablation.figures import accuracy, maps, replaced, stages, units
from poolbench_tasks.depth_ablation.measure import (
    REPLACEMENTS,
    measure,
    skipped,
    stages_of,
    summary,
)
from poolbench_tasks.depth_ablation.montage import maps_across, montage

SIDE = 16


def cells(preset: str, seeds: Sequence[int] = (0,)) -> list[Cell]:
    task = benchmarks.get("depth_ablation")()
    return [cell for grid in task.presets[preset] for cell in grid_cells(task, grid, seeds)]


def two_blocks() -> Cell:
    return next(cell for cell in cells("quick") if cell.head.name == "avg" and cell.architecture.options["blocks"] == 2)


# Planted networks: a bright object in the upper or the lower half, on a dim ground, decides the class.


def planted_data() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 40, (400, 1, SIDE, SIDE), generator=generator)
    labels = torch.randint(0, 2, (400,), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        # Everywhere in its half, but always on the half's first pixel.
        y, x = (int(torch.randint(0, limit, (), generator=generator)) for limit in (SIDE // 2 - 2, SIDE - 2))
        image[0, y + label * SIDE // 2 : y + label * SIDE // 2 + 2, x : x + 2] = 255
        image[0, label * SIDE // 2, 0] = 255
    pixels = images.to(torch.uint8)
    splits = Split(pixels[:250], labels[:250]), Split(pixels[250:], labels[250:])
    return images_dataset("planted", ("upper", "lower"), *splits, "drawn", normalize="unit")


class Halves(nn.Module):
    """Maps (b, 2, h, w): the image where it is bright, in the upper and in the lower half."""

    def forward(self, x: Tensor) -> Tensor:
        bright = nn.functional.max_pool2d((x[:, :1] > 0.5).float(), 2)
        middle = bright.shape[2] // 2
        upper = torch.cat([bright[:, :, :middle], torch.zeros_like(bright[:, :, middle:])], 2)
        return torch.cat([upper, bright - upper], 1)


class Copy(nn.Module):
    """A block that adds nothing: its input, averaged to half the size, as ``skipped`` makes it."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 2).repeat(1, 2, 1, 1)


class Noise(nn.Module):
    """A block whose maps (b, 4, h, w) are noise, whatever its input."""

    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(x.abs().sum() * 1000) % 2**31)
        return torch.rand(len(x), 4, x.shape[2] // 2, x.shape[3] // 2, generator=generator)


class ByMean(nn.Module):
    """Logits (b, 2): the means of the first two maps."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2].mean((2, 3))


class ByOnePixel(nn.Module):
    """Logits (b, 2): the pixel where the object of each class always is."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 0, 0], x[:, 1, x.shape[2] // 2, 0]], 1)


def planted(second: nn.Module, head: nn.Module) -> nn.Module:
    blocks = OrderedDict(conv1=Halves(), dropout1=nn.Identity(), conv2=second, dropout2=nn.Identity(), head=head)
    return nn.Sequential(OrderedDict(normalize=nn.Identity(), network=nn.Sequential(blocks))).eval()


def measured(second: nn.Module, head: nn.Module) -> tuple[dict[str, float], pd.DataFrame]:
    found = measure(two_blocks(), DepthOptions(100, 200), planted(second, head), planted_data())
    return dict(found.metrics), found.tables["stages"].set_index("stage")


def test_a_block_that_copies_its_input_can_be_left_out() -> None:
    metrics, table = measured(Copy(), ByMean())
    assert metrics["accuracy"] == 1.0
    assert table.loc[2, "skipped"] == 1.0
    assert metrics["last_block_gain"] == 0.0
    assert table.loc[2, "duplicates"] == 0.5  # two of four units copy the other two
    assert metrics["duplicates"] == pytest.approx(2 / 6)
    assert table.loc[1, "skipped"] < 0.7  # the first block is the one that sees the halves
    assert table.loc[2, "rank"] <= 0.5 + 1e-6
    assert table.loc[2, "probe"] == table.loc[1, "probe"] == 1.0


def test_a_stage_of_noise_looks_noisy_carries_nothing_and_could_be_any_noise() -> None:
    metrics, table = measured(Noise(), ByMean())
    assert metrics["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert table.loc[2, "noise"] == pytest.approx(1.0, abs=0.05)
    assert table.loc[1, "noise"] < 0.9
    assert np.isnan(metrics["excess_change"])  # maps of 4 px are too small to be judged
    assert table.loc[2, "probe"] == pytest.approx(0.5, abs=0.12)
    assert table.loc[1, "probe"] == 1.0
    assert metrics["last_block_gain"] < -0.3  # the class was readable before it
    assert table.loc[2, "skipped_probe"] > 0.95  # without the noise the class is readable


def test_what_a_head_reads_shows_in_what_it_loses() -> None:
    _, of_means = measured(Copy(), ByMean())
    _, of_pixels = measured(Copy(), ByOnePixel())
    # A mean does not see where values are, one pixel sees nothing else.
    assert of_means.loc[2, "with_shuffled"] == of_means.loc[2, "with_map_mean"] == 1.0
    assert of_pixels.loc[2, "with_shuffled"] < 0.75
    for table in (of_means, of_pixels):
        assert table.loc[2, "with_noise"] < 0.65
        assert table.loc[2, "with_mean"] < 0.65


def test_replacements_keep_what_they_say() -> None:
    given = torch.rand(6, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    found = {name: replace(given, torch.Generator().manual_seed(2)) for name, replace in REPLACEMENTS.items()}
    by_unit = given.transpose(0, 1).flatten(1)
    assert torch.equal(found["noise"].transpose(0, 1).flatten(1).sort().values, by_unit.sort().values)
    assert not torch.allclose(found["noise"].mean((2, 3)), given.mean((2, 3)))
    assert found["mean"][4, 1] == pytest.approx(float(given[:, 1].mean()))
    assert torch.equal(found["shuffled"].flatten(2).sort().values, given.flatten(2).sort().values)
    places = found["shuffled"][0].flatten(1), given[0].flatten(1)
    order = [int((places[1][0] == value).nonzero()) for value in places[0][0]]
    assert order != sorted(order)
    assert torch.equal(places[0], places[1][:, order])  # all units alike
    assert found["map_mean"][4, 1] == pytest.approx(float(given[4, 1].mean()))


def test_a_skipped_block_passes_its_input_on() -> None:
    before = torch.rand(2, 3, 8, 8)
    found = skipped(before, torch.zeros(2, 7, 4, 4))
    assert found.shape == (2, 7, 4, 4)
    assert torch.allclose(found[:, 4], nn.functional.avg_pool2d(before, 2)[:, 1])


def test_the_parts_of_a_network_make_the_network() -> None:
    cell = next(cell for cell in cells("quick") if cell.architecture.options["blocks"] == 5)
    data = load_dataset(cell.dataset, DataLocation("absent"))
    model = build_model(cell, data, "cpu").eval()
    pixels = data.test.images[:4].float() / 255
    parts = stages_of(model)
    found = parts.maps(pixels)
    assert [tuple(part.shape[1:]) for part in found[1:]] == [(4 * 2**k, 32 // 2**k, 32 // 2**k) for k in range(5)]
    with torch.no_grad():
        assert torch.allclose(parts.end(found[-1]), model(pixels), atol=1e-5)
        for stage in range(6):
            assert torch.allclose(parts.end(parts.last_maps(found[stage], stage)), model(pixels), atol=1e-5)


def test_other_networks_are_refused() -> None:
    with pytest.raises(UsageError, match="knows those of strided_net alone"):
        stages_of(nn.Sequential(OrderedDict(normalize=nn.Identity(), network=nn.Linear(2, 2))))


def test_a_summary_has_only_what_its_depth_defines() -> None:
    columns = ("noise", "noise_untrained", "probe", "dead", "duplicates", "rank", "smooth_units", "with_shuffled")
    same = {"units": 4, "side": 16, "skipped_probe": 0.25, "noise_image": 0.0}
    rows = [{"stage": s, **same, **dict.fromkeys(columns, 0.1 * s)} for s in range(4)]
    deep, shallow = (summary(pd.DataFrame(rows[:count]), 0.9) for count in (4, 2))
    assert {name for name, value in shallow.items() if np.isnan(value)} == {
        "probe_gain", "excess_change", "excess_change_untrained", "smooth_stages",
    }  # fmt: skip
    assert deep["probe_gain"] == pytest.approx(0.2)
    assert deep["excess_change"] == pytest.approx(0.2)
    assert deep["smooth_stages"] == pytest.approx(-1.0)  # noisier stages have the better probes
    small = pd.DataFrame([{**row, "side": 4 if row["stage"] == 3 else 16} for row in rows])
    assert summary(small, 0.9)["excess_change"] == pytest.approx(0.1)  # from stage 1 to stage 2
    assert deep["layout_cost"] == pytest.approx(0.6)
    assert deep["last_block_gain"] == pytest.approx(0.05)


def test_rank_correlation_of_too_little_is_undefined() -> None:
    assert np.isnan(rank_correlation(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
    assert np.isnan(rank_correlation(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])))
    assert rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.0, 5.0, 6.0])) == pytest.approx(1.0)


# Folds in the runner.


def test_seeds_are_folds_in_the_runner_even_where_seeds_train_stacked(tmp_path: Path) -> None:
    tiny = [
        replace(cell, train=replace(cell.train, train_images=40), measure={"images": 10, "probe_images": 20})
        for cell in cells("smoke", (0, 1, 5))
        if cell.architecture.options["blocks"] == 1
    ]
    settings = Settings(DataLocation("absent"), "cpu", replicas=8)
    assert replica_groups(tiny, settings) == [[cell] for cell in tiny]
    ledger = Ledger(tmp_path)
    for cell in tiny:
        run_cells([cell], [ledger.record(cell.id)], settings, lambda cell, row: None)
        assert ledger.result(cell).status == "finished", ledger.result(cell).reason
        expected = fold(load_dataset(cell.dataset, DataLocation("absent")), 5, cell.seed)
        assert ledger.record(cell.id).table("answers")["label"].tolist() == expected.test.labels.tolist()


def test_drawn_data_have_no_folds(tmp_path: Path) -> None:
    drawn = Component("shapes", {"canvas": 48, "samples": 64, "test_samples": 40, "margin": 0})
    cell = replace(cells("smoke")[0], dataset=drawn)
    ledger = Ledger(tmp_path)
    run_cells([cell], [ledger.record(cell.id)], Settings(DataLocation("absent"), "cpu"), lambda cell, row: None)
    assert ledger.result(cell).status == "failed"
    assert "draws new images every epoch and has no folds" in ledger.result(cell).reason


def test_intervals_allow_for_the_overlap_of_the_folds(made: Any) -> None:
    task = benchmarks.get("depth_ablation")()
    assert {metric.folds for metric in task.metrics} == {5}
    values = [0.7, 0.72, 0.76, 0.71, 0.74]
    (group,) = groups_of([made("max", seed, value) for seed, value in enumerate(values)])
    found = group_estimate(group, task.metric("accuracy"))
    assert found is not None
    assert found.fixed_part == pytest.approx(np.var(values, ddof=1) / 4)
    assert found.seeds_part == pytest.approx(np.var(values, ddof=1) / 5)


@pytest.mark.parametrize(("folds", "per_image"), [(1, ""), (5, "answers.correct")])
def test_a_task_with_a_single_fold_or_values_per_image_is_refused(folds: int, per_image: str) -> None:
    def nothing(cell: Cell, options: NoOptions, model: nn.Module, data: Dataset) -> Measurement:
        return Measurement({})

    metric = Metric("accuracy", "accuracy", higher_is_better=True, per_image=per_image)
    with pytest.raises(ValueError, match="needs two folds or more, and metrics without values per image"):
        Benchmark("odd", "t", "q", "p", (metric,), {}, {}, nothing, folds=folds)


# Presets, claims, answers and figures.


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_cells_differ_only_by_depth_pool_head_and_seed(preset: str) -> None:
    varied = {"variant", "pool", "head", "blocks"}
    rest = {
        tuple((k, v) for k, v in cell.fields.items() if k.split(".")[0] not in varied) for cell in cells(preset, (0, 1))
    }
    assert len(rest) == 1


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_every_claim_has_its_cells(preset: str) -> None:
    task = benchmarks.get("depth_ablation")()
    found = [cell.fields for cell in cells(preset)]
    for claim in task.claims:
        for condition in filter(None, (claim.where, claim.than)) if claim.than else [claim.where]:
            for side in (claim.better, claim.worse):
                assert any(all(fields[k] == v for k, v in {**condition, **side}.items()) for fields in found), claim


class Stored:
    """Tables of a network of five blocks."""

    def table(self, name: str) -> pd.DataFrame:
        if name != "stages":
            raise FileNotFoundError(name)
        columns = ("noise", "noise_untrained", "noise_image", "probe", "probe_untrained", "dead", "duplicates", "rank")
        columns = (*columns, "separation")
        kinds = ("with_noise", "with_mean", "with_shuffled", "with_map_mean", "skipped", "skipped_probe")
        rows = [
            {"stage": s, "units": 4 * 2**s, "side": 32, **dict.fromkeys((*columns, *kinds), 0.1 * s)} for s in range(6)
        ]
        return pd.DataFrame(rows)

    def array(self, name: str) -> np.ndarray[Any, Any]:
        if name != "feature_maps":
            raise KeyError(name)
        return np.linspace(0, 1, 192 * 6 * 192).reshape(192, 6 * 192)


def scene_of(results: Sequence[Result], record: Any) -> Scene:
    metrics = benchmarks.get("depth_ablation")().metrics
    return Scene(metrics, groups_of(results), varying_fields(results_frame(results)), lambda result: record)


def depth_results(seeds: int = 5) -> list[Result]:
    accuracies = {1: 0.4, 2: 0.6, 3: 0.745, 4: 0.76, 5: 0.75}
    return [
        Result(
            cell,
            "finished",
            metrics={
                "accuracy": accuracies[int(str(cell.fields["blocks"]))] + 0.02 * cell.seed,
                "last_block_gain": 0.4 + 0.01 * cell.seed,
                "excess_change": 0.1 - 0.01 * cell.seed,
            },
            facts={"chance": 0.25, "commonest": 0.5, "learned": True},
        )
        for cell in cells("quick", range(seeds))
    ]


def test_the_report_names_the_smallest_sufficient_depth() -> None:
    scene = scene_of(depth_results(), Stored())
    sentences = sufficient_depths(scene)
    assert len(sentences) == 4  # two per head
    # 3 blocks are .015 below the best; the standard error, with the overlap of the folds, is .021.
    assert sentences[0].startswith(
        "avg: by the one-standard-error rule 3 blocks are enough (accuracy 0.785; best: 4 with 0.800, "
        "standard error 0.021"
    )
    assert "5 folds). With any one fold left out the answer is" in sentences[0]
    assert "Beyond that the noise (1 is white noise) changes by 0.08" in sentences[1]
    assert "The last block adds 0.42" in sentences[1]


def test_an_answer_at_the_end_of_the_grid_is_none() -> None:
    results = [
        replace(
            one, metrics={**one.metrics, "accuracy": 0.1 * int(str(one.cell.fields["blocks"])) + 0.01 * one.cell.seed}
        )
        for one in depth_results()
    ]
    sentences = sufficient_depths(scene_of(results, Stored()))
    assert "no smaller number of blocks than 5 is enough; more were not tried" in sentences[0]


def test_probes_never_see_the_images_that_they_are_judged_on() -> None:
    data = planted_data()
    # Labels of the test images are the other way round: who was fitted to them reads them all, who was not reads none.
    odd = replace(data, test=Split(data.test.images, 1 - data.test.labels))
    table = measure(two_blocks(), DepthOptions(100, 200), planted(Copy(), ByMean()), odd).tables["stages"]
    assert table["probe"].iloc[1:].max() < 0.05
    assert table["skipped_probe"].iloc[2] < 0.05


def test_figures_draw_what_is_stored() -> None:
    results = depth_results()
    scene = scene_of(results, Stored())
    by_depth = accuracy(scene)
    assert by_depth is not None
    assert list(by_depth.axes[0].get_lines()[0].get_xdata()) == [1, 2, 3, 4, 5]  # type: ignore[arg-type]
    for draw, count in ((stages, 3), (units, 3), (replaced, 3)):
        figure = draw(scene)
        assert figure is not None
        assert len(figure.axes) == count
    picture = maps(results[0], Stored())
    assert picture is not None
    titles = [axes.get_title() for axes in picture.axes]
    assert titles[0] == "image, 32 px"
    assert titles[5] == "stage 5: 128 maps, 32 px"


def test_the_picture_of_the_maps_holds_the_most_active_ones_in_order() -> None:
    image = np.zeros((3, 8, 8))
    image[:, 2, 5] = 1.0
    units = np.stack([np.full((2, 2), value) for value in (1.0, 4.0, 0.0, 2.0, 3.0)])
    picture = montage([image, units])
    assert picture.shape == (192, 384)
    assert picture[:192, :192].mean() == pytest.approx(1 / 64)
    assert picture[2 * 24, 5 * 24] == 1.0
    # The four most active of five, from 0 (the least of the four) to 1.
    corners = [picture[y, 192 + x] for y in (0, 191) for x in (0, 191)]
    assert corners == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])


@pytest.mark.parametrize(("units", "across"), [(1, 1), (3, 1), (4, 2), (8, 2), (9, 3), (16, 4), (256, 4)])
def test_maps_fill_a_square(units: int, across: int) -> None:
    assert maps_across(units) == across


def test_figures_without_their_tables_are_left_out() -> None:
    class Empty(Stored):
        def table(self, name: str) -> pd.DataFrame:
            raise FileNotFoundError(name)

    results = depth_results(2)
    scene = scene_of(results, Empty())
    assert [draw(scene) for draw in (stages, units, replaced)] == [None] * 3
    assert maps(results[0], Empty()) is None
