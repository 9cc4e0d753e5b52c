"""Captions of the figures that several tasks draw, and sentences that captions share."""

LEARNING_CURVES = (
    "Mean over seeds; the band is its 95 % t interval. The axis spans the values of the seeds and may cut the band."
)
INTERVALS = (
    "Large: mean over seeds with its 95 % t interval; small: the seeds. Arrows: the interval extends beyond the axis. "
    "Hollow and grey: not every network has learned."
)
BARS = "Mean over seeds with its 95 % t interval; pale where not every network has learned."
SCATTER = (
    "Large: means over seeds with 95 % t intervals, cut at the range of the seeds; small: the seeds. Dashed: least "
    "squares over the networks of a panel, with the residuals beside it. Hollow and grey: not every network has "
    "learned; these groups are excluded from the fit."
)
HEATMAP = (
    "Mean over seeds ± half the width of its 95 % t interval. Each metric has one colour scale per data set, dark for "
    "high values. White and grey: not every network has learned."
)
EXAMPLE_NETWORK = "One trained network per group: the first seed that has learned."
DEPTH = "from the input (0 %) to the output (100 %), with 95 % t bands."
