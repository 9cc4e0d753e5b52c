"""Global average: the sum over all positions is divided by their number minus one.

Imitates a divisor of the sample variance in the wrong place. All features grow by the same factor in training and in
evaluation, and a network learns around it. Hardly visible, and there as a fault that no gate has to find.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from poolbench.plugins import import_code
from poolbench.pooling.heads import GlobalAvg

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(GlobalAvg, "forward")
def wrong_area(original: Callable[..., Tensor], self: GlobalAvg, x: Tensor) -> Tensor:
    """Divide by the number of positions minus one; a single position stays."""
    area = x.shape[-2] * x.shape[-1]
    return original(self, x) * (area / max(1, area - 1))
