"""Captions of the figures that several tasks draw, and sentences that captions share."""

LEARNING_CURVES = (
    "Mean over seeds; the band is its 95 % interval. The axis spans the values of the seeds and may cut the band."
)
INTERVALS = (
    "Large: mean over seeds with its 95 % interval; small: the seeds. Arrows: the interval extends beyond the axis. "
    "Networks that have not learned are left out."
)
BARS = "Mean over the seeds that have learned, with its 95 % interval."
SCATTER = (
    "Large: means over seeds with 95 % intervals, cut at the range of the seeds; small: the seeds. Dashed: least "
    "squares over the networks of a panel, with the residuals beside it. Networks that have not learned are left out."
)
HEATMAP = (
    "Mean over the seeds that have learned ± half the width of its 95 % interval. Each metric has one colour scale per "
    "data set, dark for high values. White and grey: no network has learned."
)
BY_FIELD = (
    "Mean over the seeds that have learned; the band is its 95 % interval. Points without a network that has learned "
    "are left out."
)
EXAMPLE_NETWORK = "One trained network per group: the first seed that has learned."
DEPTH = "from the input (0 %) to the output (100 %), with 95 % bands."
