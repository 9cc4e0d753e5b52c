"""Measures of a network: pure functions of tensors and modules that return numbers, tensors or tables."""
