"""Training of one network."""

from poolbench.engine.build import Normalize, build_model, initialise
from poolbench.engine.evaluation import evaluate
from poolbench.engine.loop import fit

__all__ = ["Normalize", "build_model", "evaluate", "fit", "initialise"]
