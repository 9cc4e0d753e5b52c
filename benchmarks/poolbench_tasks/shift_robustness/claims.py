"""What the sources say about pooling and shifts."""

from __future__ import annotations

from poolbench.claim import Claim, Reach
from poolbench.core import Scalar

SCHEIDL = "Scheidl 2022, 'Why pooling layers in deep learning can cause problems'"
ZHANG = "Zhang 2019, 'Making convolutional networks shift-invariant again'"
CHAMAN = "Chaman and Dokmanic 2021, 'Truly shift-invariant convolutional neural networks'"
SHAPES = Reach(datasets=("shapes",), min_accuracy=0.8, note="networks that tell the shapes apart")
IMAGES = ("mnist", "mnist_sample", "fashion_mnist", "fashion_mnist_sample", "cifar10")
TRAINED = Reach(datasets=IMAGES, min_accuracy=0.6, note="networks that classify images")
TO_THE_END = Reach(
    presets=("paper",), datasets=IMAGES, min_epochs=12, note="blurring slows training down before it pays"
)
PERIODIC: dict[str, Scalar] = {"padding_mode": "circular"}
PLAIN: dict[str, Scalar] = {"variant": "plain"}
SHIFTED: dict[str, Scalar] = {"variant": "shifted"}
MAX: dict[str, Scalar] = {"pool": "max"}
BLUR: dict[str, Scalar] = {"pool": "max_blur3"}

CLAIMS = (
    Claim(
        "pooling_breaks_shift_invariance",
        "Away from the border the output without pooling does not vary, with two max-pooling layers it does.",
        SCHEIDL,
        "aliasing",
        {"num_pooling": 0},
        {"num_pooling": 2, **MAX},
        reach=SHAPES,
    ),
    Claim(
        "pooling_flips_decisions",
        "Objects between square and circle keep their class at every position without pooling, but not with two "
        "max-pooling layers.",
        SCHEIDL,
        "morph_consistency",
        {"num_pooling": 0},
        {"num_pooling": 2, **MAX},
        reach=SHAPES,
    ),
    Claim(
        "blur_lowers_aliasing",
        "Anti-aliased max pooling varies less under shifts than max pooling (two layers).",
        ZHANG,
        "aliasing",
        BLUR,
        MAX,
        where={"num_pooling": 2},
        reach=SHAPES,
    ),
    Claim(
        "aps_keeps_decisions",
        "With circular padding adaptive polyphase sampling keeps more decisions under shifts than max pooling.",
        CHAMAN,
        "exact_consistency",
        {"pool": "max_aps"},
        MAX,
        where={**PERIODIC, **PLAIN},
        reach=TRAINED,
    ),
    Claim(
        "blur_keeps_decisions",
        "Anti-aliased max pooling keeps more decisions under shifts than max pooling (circular padding).",
        ZHANG,
        "exact_consistency",
        BLUR,
        MAX,
        where={**PERIODIC, **PLAIN},
        reach=TRAINED,
    ),
    Claim(
        "blur_raises_accuracy",
        "Anti-aliased max pooling raises the accuracy of networks trained without shifted images.",
        ZHANG,
        "accuracy",
        BLUR,
        MAX,
        where=PLAIN,
        reach=TO_THE_END,
    ),
    Claim(
        "shifted_training_keeps_decisions",
        "Networks trained on shifted images keep more decisions under all circular shifts (circular padding).",
        SCHEIDL,
        "exact_consistency",
        SHIFTED,
        PLAIN,
        where=PERIODIC,
        reach=TRAINED,
    ),
    Claim(
        "shifted_training_keeps_decisions_of_crops",
        "Networks trained on shifted images keep more decisions when a shift loses a margin of the image.",
        SCHEIDL,
        "crop_sampled",
        SHIFTED,
        PLAIN,
        reach=TRAINED,
    ),
    Claim(
        "averaging_keeps_decisions",
        "Averaging the output over neighbouring shifts keeps more decisions under shifts.",
        SCHEIDL,
        "averaged_consistency",
        minus="grid_consistency",
        reach=TRAINED,
    ),
    Claim(
        "averaging_removes_flips",
        "Averaging the output over neighbouring shifts leaves no flips: all decisions are kept.",
        SCHEIDL,
        "averaged_consistency",
        target=1.0,
        says="equal",
        reach=TRAINED,
    ),
)
