"""Measures: pure functions of tensors and modules."""
