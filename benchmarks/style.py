"""How every plot looks: one palette that the colour-blind can tell apart, labels beside what they name.

Owns colours, fonts and the two shapes that most plots have. Must not import matplotlib: the runner does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SIZE = (8.0, 4.5)  # inches
INK, FAINT = "#333333", "#bbbbbb"
# Okabe and Ito's palette; one meaning each, in every plot.
OURS, C, STDLIB, TWIN, OTHER, SPECIAL = "#0072b2", "#333333", "#d55e00", "#e69f00", "#999999", "#009e73"
SETTINGS = {
    "svg.hashsalt": "multicast",  # the same figures give the same file
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


def colour(name: str) -> str:
    """Return the colour of a contender."""
    for beginning, found in (
        ("C ", C),
        ("socket.", STDLIB),
        ("asyncio", STDLIB),
        ("uvloop", SPECIAL),
        ("native", OURS),
        ("stdlib", TWIN),
    ):
        if name.startswith(beginning):
            return found
    return OTHER


def bars(axes, values: Mapping[str, Sequence[float]], unit: str, shown: str = "{:,.0f}") -> None:
    """Draw a bar for each contender, its quartiles as a line across its end, name and figure beside it."""
    names = list(values)[::-1]  # the first one on top
    for at, name in enumerate(names):
        median, low, high = values[name]
        axes.barh(at, median, color=colour(name), height=0.7)
        axes.plot([low, high], [at, at], color=INK, linewidth=1)
        axes.annotate(shown.format(median), (high, at), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(unit)
    axes.margins(x=0.12, y=0.02)


def curve(axes, name: str, points: Mapping[float, Sequence[float]]) -> None:
    """Draw medians over quartiles, by what is on the x axis; the name stands at the last point."""
    at = list(points)
    medians, lows, highs = zip(*points.values(), strict=True)
    axes.fill_between(at, lows, highs, color=colour(name), alpha=0.15, linewidth=0)
    axes.plot(at, medians, color=colour(name), marker="o", markersize=3, linewidth=1.4, label=name)
    label = axes.annotate(name, (at[-1], medians[-1]), (5, 0), textcoords="offset points", va="center")
    label.set(color=colour(name), annotation_clip=False)


def counted(axes, at: Sequence[int]) -> None:
    """Label an axis of counts that multiply, from zero upwards."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(at), [f"{each:,}" for each in at])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
