"""The figure of the plugin's task."""

from matplotlib.figure import Figure

from poolbench.core import Result
from poolbench.plots.scene import Record, Scene


def confusion_by_pool(scene: Scene) -> Figure | None:
    """Draw the decisions by class, summed over seeds, one panel per group."""
    figure = Figure(figsize=(2 * len(scene.groups) + 1, 2.5), layout="constrained")
    panels = figure.subplots(1, len(scene.groups), squeeze=False)[0]
    for axes, group in zip(panels, scene.groups, strict=True):
        axes.imshow(sum(scene.record(result).array("confusion") for result in group.results), cmap="Blues")
        axes.set(title=f"confusion of {group.fields['pool']}", xlabel="decision", ylabel="class")
    return figure


def confusion(result: Result, record: Record) -> Figure | None:
    """Draw the decisions by class of one network."""
    figure = Figure(figsize=(2.5, 2.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(record.array("confusion"), cmap="Blues")
    axes.set(xlabel="decision", ylabel="class")
    return figure
