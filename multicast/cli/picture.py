"""The picture that `multicast listen` draws on a terminal, and the words for its numbers.

Owns the layout, for any width. Must not count, nor know a terminal: a frame is a value, which rich prints or exports.

Lines are laid out here and not by rich's tables, which take several times as long: nobody receives meanwhile.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from rich.text import Text

    from .meter import Row

_BARS = " ▁▂▃▄▅▆▇█"
_GAP = 2  # spaces between columns


def amount(value: float | None, places: int = 0) -> str:
    """Return a number in at most 7 characters: whole or with some decimals as long as it fits, then 12.3M, 1.23G."""
    if value is None:
        return "-"
    for digits in range(places, -1, -1):
        text = f"{value:.{digits}f}"
        if len(text) <= 6:
            return text
    for scale, unit in ((1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P")):
        if abs(value) < scale * 999.95 or unit == "P":
            return f"{value / scale:.{2 if abs(value) < scale * 9.995 else 1}f}{unit}"
    raise AssertionError


def duration(nanoseconds: float | None) -> str:
    """Return a time with three digits and its unit, in at most 6 characters up to a day."""
    if nanoseconds is None:
        return "-"
    if nanoseconds < 1000:
        return f"{nanoseconds:.0f}ns"
    for scale, unit in ((1e3, "µs"), (1e6, "ms"), (1e9, "s")):
        value = nanoseconds / scale
        if value < 999.5:
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return f"{nanoseconds / 1e9:.0f}s"


def share(part: int | None, whole: int) -> str:
    """Return how much of something is taken."""
    return "-" if part is None or not whole else f"{min(999, math.ceil(100 * part / whole))}%"


def sparkline(history: Sequence[float], width: int) -> str:
    """Return bars as high as the numbers, the newest at the right, the highest of them a full one."""
    shown = list(history)[-width:] if width > 0 else []
    top = max(shown, default=0)
    bars = "".join(_BARS[math.ceil(each / top * 8)] if top > 0 else _BARS[0] for each in shown)
    return bars.rjust(max(width, 0))


# Head, width, how it is read from a row's values, and its rank: where not all fit, the highest ranks are left out.
_COLUMNS = (
    ("dgrams/s", 8, lambda v: amount(v["datagrams_per_second"]), 0),
    ("Mbit/s", 7, lambda v: amount(v["mbit_per_second"], 2), 3),
    ("batch", 5, lambda v: amount(v["mean_batch"], 1), 6),
    ("gap", 6, lambda v: duration(v["mean_gap_ns"]), 5),
    ("max gap", 7, lambda v: duration(v["max_gap_ns"]), 4),
    ("drops", 6, lambda v: amount(v["kernel_drops"]), 1),
    ("queue", 5, lambda v: share(v["queued_bytes"], v["receive_buffer_bytes"]), 7),
    ("sources", 7, lambda v: amount(v["sources"]), 8),
    ("missing", 7, lambda v: amount(v["missing"]), 2),
)


def columns(width: int, *, sequence: bool) -> list[tuple[str, int, Any, int]]:
    """Return the columns that fit side by side, in their order."""
    chosen = [each for each in _COLUMNS if sequence or each[0] != "missing"]
    while len(chosen) > 1 and sum(each[1] for each in chosen) + _GAP * (len(chosen) - 1) > width:
        chosen.remove(max(chosen, key=lambda each: each[3]))
    return chosen


def frame(rows: Sequence[Row], *, title: str = "", width: int = 80, height: int = 1000) -> Text:
    """Return the picture of these rows, as rich prints it: no line longer than `width`, no more of them than `height`.

    - rows: one a feed: a line with its name and the last minute, and below it its numbers
    - title: what stands above them, cut if need be
    """
    from rich.text import Text

    sequence = any(row.values["missing"] is not None for row in rows)
    chosen = columns(width, sequence=sequence)
    lines = [Text(_cut(title, width), "bold")] if title else []
    head = (" " * _GAP).join(name.rjust(size) for name, size, *_ in chosen)
    lines.append(Text(_cut(head, width), "bold cyan"))
    room = max(1, (height - len(lines)) // 2)
    if len(rows) > room:
        room = max(1, (height - len(lines) - 1) // 2)
    for row in rows[:room]:
        lines += _row(row, chosen, width)
    if len(rows) > room:
        lines.append(Text(_cut(f"and {len(rows) - room} more, for which there is no room", width), "dim"))
    return Text("\n", no_wrap=True, overflow="crop", end="").join(lines[:height])


def _row(row: Row, chosen: Iterable[tuple[str, int, Any, int]], width: int) -> list[Text]:
    from rich.text import Text

    values, silent = row.values, not row.values["datagrams"]
    state = f"failed: {values['error']}" if row.state == "failed" else row.state
    name = f"{row.feed}  {state}".rstrip()
    first = Text(_cut(row.feed, width), "dim" if silent else "green")
    if state:
        first.append(_cut(f"  {state}", width - len(first)), "bold red")
    left = width - len(name) - _GAP
    if left >= 8:
        first.append(" " * (width - len(name) - min(left, 60)) + sparkline(row.history, min(left, 60)), "cyan")
    second = Text()
    for number, (heading, size, read, _) in enumerate(chosen):
        text = (read(values)).rjust(size)
        bad = heading in ("drops", "missing") and values["kernel_drops" if heading == "drops" else "missing"]
        second.append((" " * _GAP if number else "") + text, "bold red" if bad else "")
    return [first, second]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…" if width > 0 else ""


def line(row: Row) -> str:
    """Return an interval of a feed as a line of text, for where there is no terminal."""
    v = row.values
    parts = [
        row.feed,
        f"{v['datagrams_per_second']:.0f}/s",
        f"{v['mbit_per_second']:.2f} Mbit/s",
        f"batch {amount(v['mean_batch'], 1)}",
        f"gap {duration(v['mean_gap_ns'])} max {duration(v['max_gap_ns'])}",
        f"drops {_count(v['kernel_drops'])}",
        f"queue {share(v['queued_bytes'], v['receive_buffer_bytes'])}",
        f"sources {v['sources']}",
    ]
    return "  ".join(parts + [each for each in (_numbers(v), row.state) if each])


def summary(row: Row) -> list[str]:
    """Return all that came of a feed as lines of text, none of which is long."""
    v = row.values
    lines = [
        f"{row.feed}: {v['datagrams']} datagrams, {v['bytes']} bytes in {v['seconds']:.1f} s"
        + (f" ({row.state})" if row.state else ""),
        f"  {v['datagrams_per_second']:.0f}/s, {v['mbit_per_second']:.2f} Mbit/s, batch {amount(v['mean_batch'], 1)}, "
        f"gap {duration(v['mean_gap_ns'])} max {duration(v['max_gap_ns'])}",
        f"  sources {v['sources']}, dropped by the kernel {_count(v['kernel_drops'])}",
    ]
    return lines + [f"  {each}" for each in (_numbers(v),) if each]


def _numbers(v: dict[str, Any]) -> str:
    """What became of the sequence numbers; empty where nobody asked."""
    if v["missing"] is None:
        return ""
    parts = [f"gaps {v['gaps']}", f"missing {v['missing']}"]
    return "  ".join(
        parts + [f"{name} {v[name]}" for name in ("late", "duplicates", "restarts", "unnumbered") if v[name]]
    )


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)
