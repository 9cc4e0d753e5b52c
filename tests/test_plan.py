"""Cells, their ids, and what a selection becomes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

import pytest

from poolbench.core import FIRST_RESERVE_SEED, Cell, Component, TrainConfig, UsageError, derive_seed
from poolbench.declared import Entry
from poolbench.registry import benchmarks, pools
from poolbench.runner.plan import PRESETS, Selection, grid_cells, parse_conditions, parse_seeds, plan
from poolbench.task import Grid, NoOptions


def cell(**changes: object) -> Cell:
    made = Cell(
        "b", Component("d"), Component("a", {"width": 8, "depth": 2}), Component("max"), Component("avg"), "plain", 0,
        TrainConfig(epochs=1),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_id_is_that_of_the_canonical_configuration() -> None:
    other = cell(architecture=Component("a", {"depth": 2, "width": 8}))
    assert cell().id == other.id
    assert cell() == other
    assert hash(cell()) == hash(other)
    assert Cell.from_config(json.loads(json.dumps(cell().config()))).id == cell().id


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"pool": Component("avg")},
        {"version": 2},
        {"split": "validation"},
        {"train": TrainConfig(epochs=2)},
        {"train": TrainConfig(epochs=1, optimizer="sgd")},
        {"train": TrainConfig(epochs=1, schedule="cosine")},
        {"train": TrainConfig(epochs=1, label_smoothing=0.1)},
        {"train": TrainConfig(epochs=1, precision="bfloat16")},
        {"architecture": Component("a", {"width": 9, "depth": 2})},
        {"dataset": Component("d", {"canvas": 64})},
        {"pool": Component("max", {"p": 3.0})},
        {"head": Component("avg", {"k": 3})},
        {"padding_mode": "circular"},
        {"measure": {"images": 3}},
        {"train": TrainConfig(epochs=1, augment=("shift",))},
        {"train": TrainConfig(epochs=1, mask="disc")},
        {"train": TrainConfig(epochs=1, batch_norm="frozen")},
    ],
)
def test_everything_that_decides_a_result_is_in_the_id(changes: dict[str, object]) -> None:
    assert cell(**changes).id != cell().id


def test_a_group_is_a_cell_without_its_seed() -> None:
    assert cell(seed=3).group == cell().group
    assert cell(pool=Component("avg")).group != cell().group


def test_the_id_is_the_start_of_the_sha256_of_sorted_compact_json() -> None:
    canonical = (
        '{"architecture":{"name":"a","options":{"depth":2,"width":8}},"benchmark":"b",'
        '"dataset":{"name":"d","options":{}},"head":{"name":"avg","options":{}},"measure":{},'
        '"padding_mode":"zeros","pool":{"name":"max","options":{}},"seed":0,"split":"test","train":{"augment":[],'
        '"batch_norm":"moving","batch_size":64,"epochs":1,"label_smoothing":0.0,"learning_rate":0.001,"mask":"none",'
        '"optimizer":"adam","precision":"float32","schedule":"constant","shuffle":true,"train_images":0,'
        '"weight_decay":0.0},'
        '"variant":"plain","version":1}'
    )
    assert cell().id == hashlib.sha256(canonical.encode()).hexdigest()[:16]


def test_seeds_of_streams_differ_by_seed_and_purpose() -> None:
    seeds = {derive_seed(seed, purpose) for seed in range(50) for purpose in ("weights", "order", "augmentation")}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(3, "weights") == derive_seed(3, "weights")


@pytest.mark.parametrize(
    ("text", "expected"), [("3", (3,)), ("0-4", (0, 1, 2, 3, 4)), ("0,2,5-7", (0, 2, 5, 6, 7)), ("1,1", (1,))]
)
def test_seeds_are_parsed(text: str, expected: tuple[int, ...]) -> None:
    assert parse_seeds(text) == expected


@pytest.mark.parametrize("text", ["", "a", "4-1", "1-", "-3", "1.5", "0-99999999"])
def test_bad_seeds_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="seeds"):
        parse_seeds(text)


def test_a_bad_training_is_refused() -> None:
    with pytest.raises(UsageError, match="epochs"):
        TrainConfig(epochs=0)
    with pytest.raises(UsageError, match="learning_rate"):
        TrainConfig(epochs=1, learning_rate=0)
    with pytest.raises(UsageError, match="label_smoothing is at least 0 and below 1, got 1"):
        TrainConfig(epochs=1, label_smoothing=1)


@pytest.mark.parametrize("option", ["optimizer", "schedule", "precision"])
def test_options_of_a_training_are_answered_with_what_there_is(option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} is one of .*, got 'best'"):
        TrainConfig(epochs=1, **{option: "best"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name in benchmarks.names() for preset in benchmarks.get(name)().presets]
)
def test_presets_give_unique_cells_with_paired_seeds(name: str, preset: str) -> None:
    cells = plan(Selection((name,), preset))
    assert len({c.id for c in cells}) == len(cells)
    by_group: dict[str, set[int]] = {}
    for c in cells:
        by_group.setdefault(c.group, set()).add(c.seed)
    assert len(set(map(frozenset, by_group.values()))) == 1


def test_the_nightly_preset_shares_groups_with_the_quick_one_and_has_gated_metrics() -> None:
    quick = {cell.group for cell in plan(Selection(preset="quick"))}
    nightly = plan(Selection(preset="nightly"))
    assert {cell.group for cell in nightly} & quick
    assert {cell.seed for cell in nightly} < set(range(FIRST_RESERVE_SEED))
    for name in {cell.benchmark for cell in nightly}:
        assert any(metric.gated for metric in benchmarks.get(name)().metrics)


def test_every_benchmark_measures_accuracy_and_claims_known_metrics() -> None:
    for name in benchmarks.names():
        benchmark = benchmarks.get(name)()
        assert benchmark.name == name
        assert benchmark.metric("accuracy").higher_is_better
        assert set(benchmark.presets) == set(benchmark.seeds)
        # The gate does not watch every task.
        assert {"smoke", "quick", "paper"} <= set(benchmark.presets) <= set(PRESETS)
        for claim in benchmark.claims:
            # Sides need a direction; one metric above another does not.
            assert benchmark.metric(claim.metric).higher_is_better is not None or not claim.better
            assert not claim.minus or benchmark.metric(claim.minus)


def test_selectors_replace_axes_but_not_absent_ones() -> None:
    cells = plan(Selection(("shift_robustness",), pools=("decimate",), seeds=(7,)))
    assert {c.pool.name for c in cells} == {"none", "decimate"}
    assert {c.seed for c in cells} == {7}
    # Two on shapes, and garments with two paddings, trained in two ways.
    assert len(cells) == 2 + 4


def test_all_takes_every_entry() -> None:
    cells = plan(Selection(("shift_robustness",), pools=("all",), seeds=(0,)))
    assert {c.pool.name for c in cells} == {"none", *pools.names()}


def test_architectures_filter_what_a_preset_has() -> None:
    cells = plan(Selection(("rotation_variance",), architectures=("vgg_like",)))
    assert {cell.architecture.name for cell in cells} == {"vgg_like"}
    assert {cell.architecture.options["width"] for cell in cells} == {8}


def test_another_architecture_takes_a_place_where_no_option_makes_the_variant() -> None:
    cells = plan(Selection(("global_pooling",), architectures=("vgg_like",), seeds=(0,)))
    assert {(cell.architecture.name, cell.variant) for cell in cells} == {("vgg_like", "corrected")}
    assert {cell.architecture.options["width"] for cell in cells} == {16}
    # Shapes with a number of pooling layers are shape_net's own; padding modes every network has.
    cells = plan(Selection(("shift_robustness",), architectures=("resnet20",), seeds=(0,)))
    assert {(cell.dataset.name, cell.architecture.name) for cell in cells} == {("fashion_mnist_sample", "resnet20")}
    assert {(cell.variant, cell.padding_mode) for cell in cells} == {
        (variant, padding) for variant in ("plain", "shifted") for padding in ("zeros", "circular")
    }


def test_conditions_leave_the_cells_that_fulfil_all_of_them() -> None:
    cells = plan(Selection(("shift_robustness",), where={"num_pooling": "2"}, seeds=(0,)))
    assert {cell.architecture.options["num_pooling"] for cell in cells} == {2}
    both = plan(Selection(("shift_robustness",), where={"padding_mode": "circular", "variant": "shifted"}))
    assert {(cell.padding_mode, cell.variant) for cell in both} == {("circular", "shifted")}
    with pytest.raises(UsageError, match=r"has none with num_pooling=7; 'poolbench plan'"):
        plan(Selection(("shift_robustness",), where={"num_pooling": "7"}))
    assert parse_conditions(["a=b=c", "d=1"]) == {"a": "b=c", "d": "1"}
    for text in ("num_pooling", "=1", "a="):
        with pytest.raises(UsageError, match="FIELD=VALUE"):
            parse_conditions([text])


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(("global_poolin",)), "did you mean 'global_pooling'"),
        (Selection(preset="quik"), "unknown preset 'quik'; did you mean 'quick'"),
        (Selection(pools=("maxx",)), "did you mean 'max'"),
        (Selection(heads=("gemm",)), "did you mean 'gem'"),
        (Selection(datasets=("mnst",)), "did you mean 'mnist'"),
        (Selection(architectures=("resnet81",)), "did you mean 'resnet18'"),
    ],
)
def test_unknown_names_are_answered(selection: Selection, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(selection)


def test_a_grid_keeps_axes_given_as_none() -> None:
    grid = Grid(("d",), ("a",), ("none",), ("avg", "max"), TrainConfig(epochs=1))
    assert grid.select(pools=("max",), heads=None).pools == ("none",)
    assert grid.select(heads=("gem",)).heads == ("gem",)


def test_two_spellings_of_a_training_have_one_id() -> None:
    assert cell(train=TrainConfig(1, learning_rate=1)).id == cell(train=TrainConfig(1, learning_rate=1.0)).id
    assert cell(train=TrainConfig(1, weight_decay=-0.0)).id == cell(train=TrainConfig(1)).id
    assert cell(train=TrainConfig(1, label_smoothing=0)).id == cell(train=TrainConfig(1)).id


@pytest.mark.parametrize(
    ("preset", "condition"),
    [
        ("smoke", "pool.p=3"),
        ("smoke", "pool.p=3.0"),
        ("smoke", "pool.p=3e0"),
        ("smoke", "shuffle=true"),
        ("smoke", "shuffle=True"),
        ("smoke", "learning_rate=1e-2"),
        ("smoke", "augment=shift+flip"),
        ("smoke", "augment=flip+shift"),
    ],
)
def test_a_condition_may_spell_a_value_in_any_way(preset: str, condition: str) -> None:
    asked = Selection(("shift_robustness",), preset, pools=("gem_local",), train={"augment": ("flip", "shift")})
    assert plan(replace(asked, where=parse_conditions([condition])))


def test_a_condition_on_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown field 'num_poolng'; did you mean 'num_pooling'\?"):
        plan(Selection(("shift_robustness",), "smoke", where={"num_poolng": "1"}))


def task_with(monkeypatch: pytest.MonkeyPatch, grid: Grid) -> None:
    """Register "small": global_pooling with one grid and no preset but smoke."""
    made = replace(benchmarks.get("global_pooling")(), name="small", presets={"smoke": (grid,)}, seeds={"smoke": 1})
    monkeypatch.setitem(benchmarks._entries, "small", Entry("small", lambda: made))


def test_a_task_without_a_preset_is_left_out_of_all_and_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    task_with(monkeypatch, Grid(("mnist_sample",), ("simple_conv",), ("max",), ("avg",), TrainConfig(1)))
    assert "small" in {cell.benchmark for cell in plan(Selection(("all",), "smoke"))}
    assert "small" not in {cell.benchmark for cell in plan(Selection(("all",), "quick"))}
    with pytest.raises(UsageError, match=r"unknown preset of small 'quick' \(there are: smoke\)"):
        plan(Selection(("small",), "quick"))


def test_an_architecture_of_a_grid_keeps_the_options_that_the_grid_names(monkeypatch: pytest.MonkeyPatch) -> None:
    architectures = ("simple_conv:width=4", "vgg_like:width=4")
    task_with(monkeypatch, Grid(("mnist_sample",), architectures, ("max",), ("avg",), TrainConfig(1)))
    (kept,) = plan(Selection(("small",), "smoke", architectures=("vgg_like",)))
    assert kept.architecture.options["width"] == 4
    (asked,) = plan(Selection(("small",), "smoke", architectures=("vgg_like:width=8",)))
    assert asked.architecture.options["width"] == 8


def test_a_data_set_takes_the_place_of_those_of_the_grids_that_it_fits() -> None:
    def pairs(*names: str) -> set[tuple[str, str]]:
        cells = plan(Selection(("shift_robustness",), "smoke", datasets=names))
        return {(cell.dataset.name, cell.architecture.name) for cell in cells}

    assert pairs("mnist_sample") == {("mnist_sample", "vgg_like")}
    assert pairs("shapes") == {("shapes", "shape_net")}
    assert pairs("shapes", "fashion_mnist_sample") == {("shapes", "shape_net"), ("fashion_mnist_sample", "vgg_like")}


@dataclass(frozen=True)
class RateOptions:
    rate: float = 1.0
    count: int | None = None


def test_options_of_a_measure_are_resolved_and_checked() -> None:
    benchmark = replace(benchmarks.get("global_pooling")(), options=RateOptions)

    def ids(options: object) -> list[str]:
        grid = Grid(("mnist_sample",), ("simple_conv",), ("max",), ("avg",), TrainConfig(1), measure=options)
        return [cell.id for cell in grid_cells(benchmark, grid, (0,))]

    assert ids(RateOptions(1)) == ids(RateOptions(1.0)) == ids(RateOptions()) == ids(None)
    assert ids(RateOptions(2)) != ids(None)
    with pytest.raises(TypeError, match="measure options of global_pooling are RateOptions, got NoOptions"):
        ids(NoOptions())
    with pytest.raises(TypeError, match="float"):
        ids(RateOptions("fast"))  # type: ignore[arg-type]
