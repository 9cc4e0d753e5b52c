"""What surgery costs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from poolbench.measures.cost import Cost, measure_cost


@dataclass(frozen=True)
class CostOfSurgery:
    """The cost of a network ``before`` and ``after`` surgery, for the same batch on the same device."""

    before: Cost
    after: Cost

    @property
    def ratios(self) -> dict[str, float]:
        """Return {metric name: after / before}; inf where the original has a cost of 0."""
        before, after = self.before.as_metrics(), self.after.as_metrics()
        return {name: after[name] / cost if cost else float("inf") for name, cost in before.items()}


def cost_of_surgery(original: nn.Module, operated: nn.Module, x: Tensor, repeats: int = 10) -> CostOfSurgery:
    """Return the costs of both networks for a batch x (b, c, h, w): see ``poolbench.measures.cost.measure_cost``."""
    return CostOfSurgery(measure_cost(original, x, repeats), measure_cost(operated, x, repeats))
