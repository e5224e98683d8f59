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


def bars(
    axes, values: Mapping[str, Sequence[float]], unit: str, shown: str = "{:,.0f}", most: float | None = None
) -> None:
    """Draw a bar for each contender, its quartiles as a line across its end, name and figure beside it.

    - values: median and quartiles of each
    - most: where longer bars are cut off, so that the others can be told apart; they still have their figure
    """
    names = list(values)[::-1]  # the first one on top
    most = most or max(values[name][2] for name in names)
    for at, name in enumerate(names):
        median, low, high = values[name]
        axes.barh(at, min(median, most), color=colour(name), height=0.7)
        if median <= most:
            axes.plot([low, min(high, most)], [at, at], color=INK, linewidth=1)
        text = shown.format(median) if median <= most else f"▸ {shown.format(median)}"
        axes.annotate(text, (min(high, most), at), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(unit)
    axes.margins(x=0.15, y=0.02)


def curves(axes, points: Mapping[str, Mapping[float, Sequence[float]]], ticks: Sequence[int]) -> None:
    """Draw medians over quartiles, from zero upwards, by counts that multiply; each name stands at its last point.

    - points: of each contender, by what is on the x axis: median and quartiles
    """
    top = 1.25 * max(median for each in points.values() for median, _, _ in each.values())
    drawn: list[str] = []
    for name, each in points.items():
        at, (medians, lows, highs) = list(each), zip(*each.values(), strict=True)
        dashes = ("-", "--", ":")[drawn.count(colour(name)) % 3]
        drawn.append(colour(name))
        axes.fill_between(at, lows, highs, color=colour(name), alpha=0.12, linewidth=0)
        axes.plot(at, medians, color=colour(name), marker="o", markersize=3, linewidth=1.4, linestyle=dashes)
    beside = -top
    for name, each in sorted(points.items(), key=lambda item: list(item[1].values())[-1][0]):
        end, (median, _, _) = list(each.items())[-1]
        if end == ticks[-1]:
            beside = max(median, beside + 0.07 * top)  # no label upon another
            at = 1.02, beside / top
        else:
            at = 0.02, median / top - 0.08
        where = {"xytext": at, "textcoords": "axes fraction"}
        axes.annotate(name, (end, median), va="center", color=colour(name), annotation_clip=False, **where)
    axes.set_xscale("log", base=2)
    shown = ticks[:: 1 + len(ticks) // 8]
    axes.set_xticks(shown, [f"{each:,}" for each in shown])
    axes.minorticks_off()
    axes.set_ylim(0, top)
