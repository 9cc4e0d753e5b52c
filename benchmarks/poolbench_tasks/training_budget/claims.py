"""What anti-aliasing gains with more training, and whether it keeps decisions at every budget."""

from __future__ import annotations

from poolbench.claim import Claim, Reach
from poolbench.core import Scalar

SUITE = "question of this suite"
ZHANG = "Zhang 2019, 'Making convolutional networks shift-invariant again'"
CHAMAN = "Chaman and Dokmanic 2021, 'Truly shift-invariant convolutional neural networks'"
REACH = Reach(note="networks that classify images, with circular padding")
MAX: dict[str, Scalar] = {"pool": "max"}
BLUR: dict[str, Scalar] = {"pool": "max_blur3"}
APS: dict[str, Scalar] = {"pool": "max_aps"}
Sides = tuple[dict[str, Scalar], dict[str, Scalar]]
MORE_EPOCHS: Sides = {"epochs": 8}, {"epochs": 2}
MORE_IMAGES: Sides = {"train_images": 2000}, {"train_images": 500}


def _gain(name: str, pool_words: str, with_more: str, pool: dict[str, Scalar], sides: Sides) -> Claim:
    """Say that the lead of a pool over max pooling in accuracy is larger with more training, the first side."""
    sentence = f"What {pool_words} gains in accuracy over max pooling is more {with_more}."
    return Claim(name, sentence, SUITE, "accuracy", pool, MAX, *sides, reach=REACH)


def _keeps(name: str, words: str, source: str, pool: dict[str, Scalar]) -> Claim:
    sentence = (
        f"{words} keeps more decisions than max pooling under all circular shifts, on average over the amounts of "
        "training."
    )
    return Claim(name, sentence, source, "exact_consistency", pool, MAX, reach=REACH)


CLAIMS = (
    _gain(
        "blur_gains_with_epochs",
        "anti-aliased max pooling",
        "after 8 epochs than after 2",
        BLUR,
        MORE_EPOCHS,
    ),
    _gain(
        "aps_gains_with_epochs",
        "adaptive polyphase sampling",
        "after 8 epochs than after 2",
        APS,
        MORE_EPOCHS,
    ),
    _gain(
        "blur_gains_with_images",
        "anti-aliased max pooling",
        "with 2,000 training images than with 500",
        BLUR,
        MORE_IMAGES,
    ),
    _keeps("blur_keeps_decisions_over_budgets", "Anti-aliased max pooling", ZHANG, BLUR),
    _keeps("aps_keeps_decisions_over_budgets", "Adaptive polyphase sampling", CHAMAN, APS),
)
