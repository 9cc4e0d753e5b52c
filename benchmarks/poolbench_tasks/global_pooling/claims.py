"""What the article says, and what each of its flaws adds to it."""

from __future__ import annotations

from poolbench.claim import Claim, Reach
from poolbench.core import Scalar

ARTICLE = "article 'Global pooling in convolutional neural networks' (one run, no seed)"
SUITE = "question of this suite"
REACH = Reach(
    datasets=("fashion_mnist", "mnist", "cifar10"),
    min_epochs=60,
    note="the article trains on 60,000 images, and GAP gains most after epoch 28",
)
SMALL = Reach(datasets=("fashion_mnist_sample",), note="short training on 2,000 garments")
MARGIN = 0.01
"""Of accuracy: the article's differences between heads are a few points, so one point is not nothing."""
AVG: dict[str, Scalar] = {"head": "avg"}
MAX: dict[str, Scalar] = {"head": "max"}


def _lead(name: str, sentence: str, variant: str) -> Claim:
    return Claim(name, sentence, ARTICLE, "accuracy", AVG, MAX, {"variant": variant}, margin=MARGIN, reach=REACH)


def _flaw(name: str, words: str, field: str, flawed: Scalar, corrected: Scalar) -> Claim:
    """Say that the lead of GAP is larger with a flaw than without it, averaged over the other two flaws."""
    return Claim(
        f"gap_lead_from_{name}",
        f"The lead of global average pooling is larger {words}.",
        SUITE,
        "accuracy",
        AVG,
        MAX,
        {field: flawed},
        {field: corrected},
        margin=MARGIN,
        reach=REACH,
    )


def _in_short_training(name: str, words: str, better: str, worse: str) -> Claim:
    """Compare two heads after short training on few images, where the published protocols are no guide."""
    sentence = f"After short training on 2,000 garments, {words}."
    sides: tuple[dict[str, Scalar], dict[str, Scalar]] = {"head": better}, {"head": worse}
    return Claim(name, sentence, SUITE, "accuracy", *sides, {"variant": "corrected"}, margin=MARGIN, reach=SMALL)


CLAIMS = (
    _in_short_training(
        "gap_beats_gmp_small", "global average pooling classifies better than global max pooling", "avg", "max"
    ),
    _in_short_training(
        "flatten_beats_gap_small",
        "a linear layer on all values of the maps classifies better than their global average",
        "flatten",
        "avg",
    ),
    _lead(
        "gap_beats_gmp_article",
        "Global average pooling gives a higher validation accuracy than global max pooling.",
        "article",
    ),
    _lead(
        "gap_beats_gmp_corrected",
        "Without the sigmoid, shuffled and standardised, GAP gives a higher validation accuracy than GMP.",
        "corrected",
    ),
    _flaw("sigmoid", "with the sigmoid before the cross entropy than without", "sigmoid", True, False),
    _flaw("order", "without shuffling than with it", "shuffle", False, True),
    _flaw("pixels", "with pixels in [0, 1] than standardised", "data.normalize", "unit", "standard"),
)
