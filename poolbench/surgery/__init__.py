"""Surgery: pools in place of the downsamplings of any nn.Module."""

from poolbench.surgery.cost import CostOfSurgery, cost_of_surgery
from poolbench.surgery.layers import GlobalPool
from poolbench.surgery.placement import PlacementName
from poolbench.surgery.replace import Replaced, Sites, Surgery, replace_pooling
from poolbench.surgery.sites import LeftAlone, Site, find_sites

__all__ = [
    "CostOfSurgery",
    "GlobalPool",
    "LeftAlone",
    "PlacementName",
    "Replaced",
    "Site",
    "Sites",
    "Surgery",
    "cost_of_surgery",
    "find_sites",
    "replace_pooling",
]
