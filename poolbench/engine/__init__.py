"""Training of one network."""

from poolbench.engine.build import Normalize, build_model, initialise
from poolbench.engine.fit import evaluate, fit

__all__ = ["Normalize", "build_model", "evaluate", "fit", "initialise"]
