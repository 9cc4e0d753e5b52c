"""Global average: the last row and the last column of the map are left out.

Imitates a slice that ends one too early. A network with circular padding loses its exact period with it: what leaves
the averaged part at one side does not enter it at the other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from poolbench.plugins import import_code
from poolbench.pooling.heads import GlobalAvg

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(GlobalAvg, "forward")
def cut_border(original: Callable[..., Tensor], self: GlobalAvg, x: Tensor) -> Tensor:
    """Average without the last row and column; a single position stays."""
    return original(self, x[..., :-1, :-1] if min(x.shape[-2:]) > 1 else x)
