"""Response of a network to rotated images: variance of its units, predictions, equivariance error, similarity."""

from poolbench.measures.rotation.controls import QuarterTurns
from poolbench.measures.rotation.decisions import decisions_by_angle
from poolbench.measures.rotation.equivariance import local_equivariance_error
from poolbench.measures.rotation.layers import recorded_layers
from poolbench.measures.rotation.quiroga import quiroga2019_variance
from poolbench.measures.rotation.similarity import rotated_cka
from poolbench.measures.rotation.variance import Sweep, activation_variance, layer_means, rise_with_depth, sweep

__all__ = [
    "QuarterTurns",
    "Sweep",
    "activation_variance",
    "decisions_by_angle",
    "layer_means",
    "local_equivariance_error",
    "quiroga2019_variance",
    "recorded_layers",
    "rise_with_depth",
    "rotated_cka",
    "sweep",
]
