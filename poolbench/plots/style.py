"""Colours, sizes and matplotlib settings of all figures, and how figures become PNG, PDF and SVG."""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Okabe and Ito's colours for all kinds of colour vision, without the yellow that vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D")
GREY = "#767676"
# Two hues around white: the side of 0.5 decides the class, so the scale shows it.
MAP_COLOURS = "RdBu_r"
WIDTH = 9.0  # inches, of the widest figures
FONTS = "'DejaVu Sans', Verdana, 'Segoe UI', Helvetica, Arial, sans-serif"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titley": 1.0,  # fixed: an automatic position needs a layout of every axis
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "image.interpolation": "none",
    # Names come from users: a dollar sign starts no formula.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "poolbench",
}


def to_png(figure: Figure, dpi: int = 110) -> bytes:
    """Return the figure as a PNG."""
    content = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()


def to_pdf(figure: Figure) -> bytes:
    """Return the figure as a PDF; equal figures give equal bytes."""
    content = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return content.getvalue()


def to_svg(figure: Figure) -> str:
    """Return the figure as an <svg> element that scales with the page's width; equal figures give equal text.

    Ids carry a prefix derived from the content, so that several elements on one page do not mix up their
    clip paths.
    """
    content = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = content.getvalue().decode()
    svg = svg[svg.index("<svg") :].strip()
    # The reader's machine may lack the font the layout was computed for; the fallbacks are as wide or narrower.
    svg = svg.replace("'DejaVu Sans'", FONTS)
    width = round(figure.get_figwidth() * 96)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 style="width: 100%; max-width: {width}px"', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    prefix = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
