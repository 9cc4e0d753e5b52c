"""The pool of the plugin."""

from torch import Tensor

from poolbench.pooling import Pool
from poolbench.pooling.padding import PaddingMode
from poolbench.pooling.windows import complete, window_max
from poolbench.registry import pools


@pools.register("spread", reference="this plugin", shift_equivariant=False, learnable=False, random=False)
class SpreadPool(Pool):
    """Largest value of each window less the weighted smallest one."""

    keeps_constants = False

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros", weight: float = 1.0
    ) -> None:
        super().__init__()
        self.stride, self.padding_mode, self.weight = stride, padding_mode, weight

    def forward(self, x: Tensor) -> Tensor:
        x = complete(x, self.stride, self.padding_mode)
        return window_max(x, self.stride) + self.weight * window_max(-x, self.stride)
