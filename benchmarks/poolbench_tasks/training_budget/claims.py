"""What anti-aliasing gains with more training, and whether it keeps decisions at every budget."""

from __future__ import annotations

from poolbench.core import Claim, Reach, Scalar

SUITE = "question of this suite"
ZHANG = "Zhang 2019, 'Making convolutional networks shift-invariant again'"
CHAMAN = "Chaman and Dokmanic 2021, 'Truly shift-invariant convolutional neural networks'"
REACH = Reach(note="networks that classify images, with circular padding")
MAX: dict[str, Scalar] = {"pool": "max"}
BLUR: dict[str, Scalar] = {"pool": "max_blur3"}
APS: dict[str, Scalar] = {"pool": "max_aps"}
MORE_EPOCHS: tuple[dict[str, Scalar], dict[str, Scalar]] = {"epochs": 8}, {"epochs": 2}
MORE_IMAGES: tuple[dict[str, Scalar], dict[str, Scalar]] = {"train_images": 2000}, {"train_images": 500}

CLAIMS = (
    Claim(
        "blur_gains_with_epochs",
        "What anti-aliased max pooling gains in accuracy over max pooling is more after 8 epochs than after 2.",
        SUITE,
        "accuracy",
        BLUR,
        MAX,
        *MORE_EPOCHS,
        reach=REACH,
    ),
    Claim(
        "aps_gains_with_epochs",
        "What adaptive polyphase sampling gains in accuracy over max pooling is more after 8 epochs than after 2.",
        SUITE,
        "accuracy",
        APS,
        MAX,
        *MORE_EPOCHS,
        reach=REACH,
    ),
    Claim(
        "blur_gains_with_images",
        "What anti-aliased max pooling gains in accuracy over max pooling is more with 2,000 training images than "
        "with 500.",
        SUITE,
        "accuracy",
        BLUR,
        MAX,
        *MORE_IMAGES,
        reach=REACH,
    ),
    Claim(
        "blur_keeps_decisions_over_budgets",
        "Anti-aliased max pooling keeps more decisions than max pooling under all circular shifts, on average over "
        "the amounts of training.",
        ZHANG,
        "exact_consistency",
        BLUR,
        MAX,
        reach=REACH,
    ),
    Claim(
        "aps_keeps_decisions_over_budgets",
        "Adaptive polyphase sampling keeps more decisions than max pooling under all circular shifts, on average over "
        "the amounts of training.",
        CHAMAN,
        "exact_consistency",
        APS,
        MAX,
        reach=REACH,
    ),
)
