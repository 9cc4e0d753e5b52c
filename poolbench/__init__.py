"""poolbench: what pooling does to image classifiers, measured."""

__version__ = "0.1.0"
