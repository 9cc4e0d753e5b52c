"""What is said about depth and about maps that look noisy."""

from __future__ import annotations

from poolbench.claim import Claim, Reach
from poolbench.core import Scalar

QUESTION = (
    "question of a reader of feature maps: 'are the last two convolutions useless because their maps look noisy?'"
)
SUITE = "question of this suite"
REACH = Reach(note="stride-2 convolutions at 64 px")
DEEP: dict[str, Scalar] = {"blocks": 5}

CLAIMS = (
    Claim(
        "last_two_useless",
        "The last two of five convolutions do not change the accuracy.",
        QUESTION,
        "accuracy",
        DEEP,
        {"blocks": 3},
        says="equal",
        reach=REACH,
    ),
    Claim(
        "deeper_is_noisier",
        "In a network of five blocks later maps look noisier than the first, beyond what their size explains.",
        QUESTION,
        "excess_change",
        where=DEEP,
        target=0.0,
        reach=REACH,
    ),
    Claim(
        "last_block_is_useful",
        "The class is better readable after the last of five blocks than before it.",
        SUITE,
        "last_block_gain",
        where=DEEP,
        target=0.0,
        reach=REACH,
    ),
    Claim(
        "noise_is_useless",
        "The class is less readable from stages whose maps look noisier.",
        QUESTION,
        "smooth_stages",
        where=DEEP,
        target=0.0,
        reach=REACH,
    ),
    Claim(
        "noisy_units_are_useless",
        "Within a stage, units whose maps look noisier separate the classes less.",
        SUITE,
        "smooth_units",
        where=DEEP,
        target=0.0,
        reach=REACH,
    ),
    Claim(
        "depth_pays_less_with_max",
        "The last two of five blocks gain more with global average pooling than with global max pooling.",
        SUITE,
        "accuracy",
        DEEP,
        {"blocks": 3},
        {"head": "avg"},
        {"head": "max"},
        reach=REACH,
    ),
)
