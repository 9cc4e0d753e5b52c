"""Robustness of a classifier to shifts of its input.

``consistency``: predictions under shifts of whole images. ``maps``: the output with one object at every
position of a canvas; ``map_summary`` reduces such a map to numbers. ``sensitivity``: features under shifts,
stage by stage. ``probe``: total stride and receptive field of a network.
"""

from poolbench.geometry import BOUNDARIES, move, shift_subpixel
from poolbench.measures.shift.consistency import (
    BFloat16,
    Consistency,
    NotPeriodic,
    PerImage,
    Steps,
    average_phases,
    consistency_of,
    exact_consistency,
    legacy_consistency,
    per_image,
    period_of_logits,
    sampled_agreement,
    sampled_consistency,
    shift_grid,
    shifted_logits,
    step_changes,
    subpixel_consistency,
)
from poolbench.measures.shift.map_summary import (
    MapParts,
    MapStatistics,
    decompose,
    interior_margin,
    log_odds,
    map_statistics,
)
from poolbench.measures.shift.maps import MapPlan, canvas_map, plan_map
from poolbench.measures.shift.probe import receptive_reach, total_stride
from poolbench.measures.shift.sensitivity import layer_sensitivity, pair_sensitivity, stages
from poolbench.recording import outputs

__all__ = [
    "BOUNDARIES",
    "BFloat16",
    "Consistency",
    "MapParts",
    "MapPlan",
    "MapStatistics",
    "NotPeriodic",
    "PerImage",
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
    "pair_sensitivity",
    "per_image",
    "period_of_logits",
    "plan_map",
    "receptive_reach",
    "sampled_agreement",
    "sampled_consistency",
    "shift_grid",
    "shift_subpixel",
    "shifted_logits",
    "stages",
    "step_changes",
    "subpixel_consistency",
    "total_stride",
]
