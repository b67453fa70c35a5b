"""How a figure of the report page becomes inline SVG: style, palette, and the SVG itself.

Colours are written as CSS variables of the page, so that a figure follows the light and the dark
scheme, and text stays text. The same input gives the same bytes: no date, no random ids, and no
influence of a user's matplotlibrc.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Name of the CSS variable: its colour on light and on dark ground. The hues are those of Okabe and
# Ito, which colour-blind readers can tell apart, with the light ones darkened for white paper.
# No two light colours may be equal: they are how a colour is found again in the SVG.
PALETTE = {
    "ink": ("#1c2024", "#e8eaed"),
    "muted": ("#646b75", "#9aa3ae"),
    "grid": ("#e1e4e8", "#343a41"),
    "blue": ("#0067a3", "#5cb3ec"),
    "orange": ("#c77700", "#f0a93b"),
    "green": ("#00855f", "#3cc79d"),
    "purple": ("#a8558a", "#dc92c0"),
    "red": ("#c24a00", "#f4814a"),
    "sky": ("#2f93cc", "#8fd0f5"),
}
HEX = {name: light for name, (light, _) in PALETTE.items()}

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kd_keras",
    "text.parse_math": False,  # a class may be called $x$
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": HEX["ink"],
    "axes.edgecolor": HEX["grid"],
    "axes.labelcolor": HEX["muted"],
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": HEX["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": HEX["grid"],
    "ytick.color": HEX["grid"],
    "xtick.labelcolor": HEX["muted"],
    "ytick.labelcolor": HEX["muted"],
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
}
INCH = 72.0  # points, the unit of the SVG


@contextmanager
def drawing() -> Iterator[None]:
    """Draws in the style of the page, whatever the user's own settings are."""
    with warnings.catch_warnings(), matplotlib.style.context(["default", _STYLE], after_reset=True):
        # The browser chooses the font, so a glyph that matplotlib's own font lacks does no harm.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _for_page(tag: str, name: str, used: set[str]) -> str:
    """Fits one tag of a figure to a page that holds several: ids, font and colours."""
    # Ids must be unique in the page: those that nothing refers to go, the others get a prefix.
    tag = re.sub(r'\sid="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", tag)
    tag = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", tag)
    tag = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", tag)
    for role, colour in HEX.items():
        tag = tag.replace(colour, f"var(--{role})")
    return tag


def as_svg(figure: Figure, name: str, description: str) -> Markup:
    """Turns a figure into an SVG element that can stand in an HTML page beside others."""
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<defs>\s*<style.*?</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    # Only inside of tags: the texts between them are the user's.
    body = re.sub(r"<[^>]*>", lambda tag: _for_page(tag[0], name, used), body)
    width, height = (INCH * side for side in figure.get_size_inches())
    return Markup(
        f'<svg role="img" aria-label="{escape(description)}" viewBox="0 0 {width:g} {height:g}" '
        f'style="max-width:{1.3 * width:.0f}px">{body.strip()}'
    )


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """Returns a figure of a width and a height in points."""
    return Figure(figsize=(width / INCH, height / INCH), **options)


def percent_axis(axis: Any, bins: int = 5) -> None:
    """Lets an axis of fractions show per cent at round steps."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))


def quiet(axes: Axes, grid: str = "both") -> None:
    """Leaves only the grid lines of one or both axes, no ticks."""
    axes.tick_params(length=0)
    axes.grid(False)
    axes.grid(True, axis=grid)  # type: ignore[arg-type]
