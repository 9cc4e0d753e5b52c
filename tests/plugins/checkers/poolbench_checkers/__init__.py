"""A pool, a data set and a task with its own figure, installed from outside the package."""

from dataclasses import dataclass

from poolbench.core import Metric, TrainConfig
from poolbench.registry import benchmarks
from poolbench.task import Benchmark, Figure, Grid, deferred
from poolbench_checkers import checkers, spread

__all__ = ["checkers", "spread"]

draw = deferred("poolbench_checkers.figures")


@dataclass(frozen=True)
class CheckersOptions:
    """Options of the measure: how many test images it uses."""

    images: int = 100


@benchmarks.register("checkers")
def make_task() -> Benchmark:
    """Which classes of board does a network confuse?"""
    grid = Grid(
        datasets=("boards",),
        architectures=("simple_conv",),
        pools=("max", "spread:weight=0.5"),
        heads=("flatten",),
        train=TrainConfig(epochs=2, learning_rate=1e-2),
        model={"width": 4, "hidden": 8},
        measure=CheckersOptions(),
    )
    return Benchmark(
        name="checkers",
        title="Checkers",
        question="Which classes of board does a network confuse?",
        protocol="Noisy boards, stripes against squares.",
        metrics=(Metric("accuracy", "accuracy", higher_is_better=True, tolerance=0.01),),
        presets={"smoke": [grid], "quick": [grid], "paper": [grid]},
        seeds={"smoke": 1, "quick": 3, "paper": 5},
        measure=deferred("poolbench_checkers.measure").measure,
        options=CheckersOptions,
        figures=(
            Figure(
                "confusion",
                "Confusion of boards",
                "Decisions by class, one panel per pool.",
                draw_summary=draw.confusion_by_pool,
                draw_cell=draw.confusion,
            ),
        ),
    )
