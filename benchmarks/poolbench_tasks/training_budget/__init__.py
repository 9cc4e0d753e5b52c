"""How much training anti-aliasing needs: accuracy and consistency against epochs and training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poolbench.choice import Choice
from poolbench.core import FROM_0_TO_1, NOT_NEGATIVE, Metric, Scalar, TrainConfig
from poolbench.plots import captions
from poolbench.registry import benchmarks
from poolbench.task import Benchmark, Figure, Grid, deferred
from poolbench_tasks.training_budget.claims import CLAIMS

POOLS = ("max", "max_blur3", "max_aps")
LEAD = (
    "Mean difference to max pooling, paired by seed; the band is its 95 % interval over seeds and test images. Above "
    "the dashed line the pool is ahead of max pooling."
)

draw = deferred("poolbench_tasks.training_budget.figures")
FIGURES = (
    Figure("accuracy_lead", "Lead in accuracy over max pooling, by epochs", LEAD, draw.accuracy_lead),
    Figure("accuracy", "Accuracy by epochs", captions.BY_FIELD, draw.accuracy),
    Figure("consistency", "Exact consistency by epochs", captions.BY_FIELD, draw.consistency),
    Figure("consistency_lead", "Lead in exact consistency over max pooling, by epochs", LEAD, draw.consistency_lead),
)
CHOICES = (Choice("pool", "Accuracy", "max", ("accuracy", "exact_consistency")),)


@dataclass(frozen=True)
class BudgetOptions:
    """``images``: the number of test images that are measured under all circular shifts."""

    images: int = 250


def _grids(
    dataset: str,
    epochs: Sequence[int],
    sizes: Sequence[int],
    measured: int,
    pools: Sequence[str] = POOLS,
    data: Mapping[str, Scalar] | None = None,
) -> list[Grid]:
    """Every number of epochs with every number of training images, each a training of its own."""
    return [
        Grid(
            datasets=(dataset,),
            architectures=("vgg_like",),
            pools=pools,
            heads=("avg",),
            train=TrainConfig(
                epochs=count, batch_size=64, learning_rate=1e-2, schedule="one_cycle", train_images=images
            ),
            variant="plain",
            padding_mode="circular",
            model={"width": 8, "hidden": 32},
            data=data or {},
            measure=BudgetOptions(measured),
        )
        for images in sizes
        for count in epochs
    ]


@benchmarks.register("training_budget")
def training_budget() -> Benchmark:
    """How much training does anti-aliasing need before it pays?"""
    padded: dict[str, Scalar] = {"pad": 2}
    return Benchmark(
        name="training_budget",
        title="Pooling and the amount of training",
        question="From how many epochs and training images on does an anti-aliased pooling pay?",
        protocol=(
            "One network (vgg_like, circular padding) trained on images as they are, for each number of epochs and of "
            "training images anew: one cycle of the learning rate over all its epochs, so that every training is a "
            "finished one. A seed chooses the training images, the initial weights and the order; all pools share "
            "them. Accuracy is on all test images, exact consistency over all circular shifts of some of them, the "
            "same in every cell."
        ),
        metrics=(
            Metric(
                "accuracy", "accuracy", higher_is_better=True, tolerance=0.02, per_image="answers.correct", share=True
            ),
            Metric(
                "subset_accuracy",
                "accuracy, same images",
                higher_is_better=True,
                tolerance=0.02,
                per_image="decisions.correct",
                share=True,
            ),
            Metric(
                "exact_consistency",
                "exact consistency",
                higher_is_better=True,
                tolerance=0.01,
                per_image="decisions.consistency",
                share=True,
            ),
            Metric(
                "worst_accuracy",
                "worst-case accuracy",
                higher_is_better=True,
                tolerance=0.03,
                per_image="decisions.worst",
                share=True,
            ),
            Metric(
                "mean_shifted_accuracy",
                "accuracy, mean over shifts",
                higher_is_better=True,
                tolerance=0.02,
                per_image="decisions.mean_correct",
                share=True,
            ),
            Metric("train_accuracy", "training accuracy", tolerance=0.02, bounds=FROM_0_TO_1),
            Metric("loss", "loss", higher_is_better=False, tolerance=0.05, headline=False, bounds=NOT_NEGATIVE),
        ),
        presets={
            "smoke": _grids("fashion_mnist_sample", (1, 2), (200,), 20, ("max", "max_aps"), padded),
            "quick": _grids("fashion_mnist_sample", (2, 8), (2000,), 250, ("max", "max_blur3"), padded),
            "paper": [
                *_grids("fashion_mnist", (1, 2, 4, 8, 16, 24), (500, 2000, 8000, 60000), 2000, data=padded),
                *_grids("cifar10", (1, 2, 4, 8, 16, 24), (500, 2000, 8000, 50000), 2000),
            ],
        },
        seeds={"smoke": 1, "quick": 6, "paper": 5},
        options=BudgetOptions,
        measure=deferred(f"{__name__}.measure").measure,
        claims=CLAIMS,
        choices=CHOICES,
        figures=FIGURES,
    )
