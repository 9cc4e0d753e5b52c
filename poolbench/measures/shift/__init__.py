"""How a classifier answers when its input moves by pixels.

``maps``: the output with an object at every position; ``consistency``: decisions under shifts of whole images;
``sensitivity``: features under shifts, stage by stage; ``moves``: the ways to move an image.
"""

from poolbench.geometry import BOUNDARIES, move, shift_subpixel
from poolbench.measures.shift.consistency import (
    BFloat16,
    Consistency,
    NotPeriodic,
    Steps,
    average_phases,
    consistency_of,
    exact_consistency,
    legacy_consistency,
    period_of_logits,
    sampled_consistency,
    shift_grid,
    shifted_logits,
    step_changes,
    subpixel_consistency,
)
from poolbench.measures.shift.maps import (
    MapParts,
    MapStatistics,
    canvas_map,
    decompose,
    interior_margin,
    log_odds,
    map_statistics,
    receptive_reach,
    total_stride,
)
from poolbench.measures.shift.passes import outputs
from poolbench.measures.shift.sensitivity import layer_sensitivity, stages

__all__ = [
    "BOUNDARIES",
    "BFloat16",
    "Consistency",
    "MapParts",
    "MapStatistics",
    "NotPeriodic",
    "Steps",
    "average_phases",
    "canvas_map",
    "consistency_of",
    "decompose",
    "exact_consistency",
    "interior_margin",
    "layer_sensitivity",
    "legacy_consistency",
    "log_odds",
    "map_statistics",
    "move",
    "outputs",
    "period_of_logits",
    "receptive_reach",
    "sampled_consistency",
    "shift_grid",
    "shift_subpixel",
    "shifted_logits",
    "stages",
    "step_changes",
    "subpixel_consistency",
    "total_stride",
]
