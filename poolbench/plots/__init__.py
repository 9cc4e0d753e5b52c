"""Plots of results: style, primitives, and the scene they draw from. Built on matplotlib's objects, never on pyplot.

pyplot keeps every figure open in global state; these figures need no closing and may be drawn by several callers.
"""
