"""Two metrics side by side for each way of training: trained on x tested on."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from poolbench.analysis.statistics import t_interval
from poolbench.analysis.text import term
from poolbench.core import Figure as Drawing
from poolbench.plots.parts import panel_grid
from poolbench.plots.scene import Scene


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    metrics = [scene.benchmark.metric(name) for name in drawing.sources]
    groups = [group for group in scene.groups if all(group.values(metric.name) for metric in metrics)]
    if not groups:
        return None
    panels, looks = scene.panels(drawing, groups), scene.looks(drawing)
    figure, axes = panel_grid(panels, columns=min(3, len(panels)), panel_height=1.9, legend_rows=1)
    width = 0.8 / max(len(members) for members in panels.values())
    for panel, members in zip(axes, panels.values(), strict=True):
        for place, group in enumerate(members):
            colour = looks[group.fields.get(drawing.colour)][0]
            for x, metric in enumerate(metrics):
                interval = t_interval(list(group.values(metric.name).values()))
                at = x + (place - (len(members) - 1) / 2) * width
                panel.bar([at], [interval.mean], 0.92 * width, color=colour, alpha=0.35 if group.unlearned else 0.9)
                if interval.n > 1:
                    panel.plot([at, at], [interval.low, interval.high], color="#222222", linewidth=1.2)
                text = f"{interval.mean:.3f}".replace("0.", ".", 1)
                shade = "#222222" if group.unlearned else "white"
                panel.text(at, 0.02, text, ha="center", va="bottom", fontsize=7.5, color=shade, fontweight="bold")
        panel.set_xticks(range(len(metrics)), [f"tested on\n{metric.title.rpartition(', ')[2]}" for metric in metrics])
        panel.set_ylim(0, 1)
        panel.grid(axis="x", visible=False)
        spec = panel.get_subplotspec()
        if spec is not None and spec.is_first_col():
            panel.set_ylabel(drawing.label)
    keys = [
        Patch(color=colour, label=f"trained on {term(drawing.colour, value)}") for value, (colour, _) in looks.items()
    ]
    figure.legend(handles=keys, loc="upper center", ncols=len(keys), borderaxespad=0.2)
    return figure
