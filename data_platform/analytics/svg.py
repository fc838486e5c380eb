"""Charts as plain SVG text: lines, stacked bands, bars. Pure; colours are CSS variables with a fallback."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from html import escape

WIDTH, HEIGHT = 480, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 14, 30  # room for the larger text of a phone, see page.py
COLOURS = ("#2563eb", "#0d9488", "#d97706", "#be185d", "#6d28d9", "#475569")
TICKS = 4


@dataclass(frozen=True)
class Series:
    """A named row of values, one a day; None leaves a gap."""

    name: str
    values: Sequence[float | None]


def lines(days: Sequence[date], series: Sequence[Series]) -> str:
    """A line per series over the days."""
    top = _nice(max((v for s in series for v in s.values if v is not None), default=0))
    body = [_frame(days, top)]
    for number, each in enumerate(series):
        points = [
            f"{_x(index, len(days)):.1f},{_y(value, top):.1f}"
            for index, value in enumerate(each.values)
            if value is not None
        ]
        colour = COLOURS[number % len(COLOURS)]
        if len(points) == 1:
            x, y = points[0].split(",")
            body.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        elif points:
            body.append(
                f'<polyline fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round" '
                f'points="{" ".join(points)}"/>'
            )
    return _svg(body, ", ".join(each.name for each in series))


def bands(days: Sequence[date], series: Sequence[Series]) -> str:
    """Stacked columns, a column a day, the first series at the bottom."""
    totals = [sum(each.values[index] or 0 for each in series) for index in range(len(days))]
    top = _nice(max(totals, default=0))
    body = [_frame(days, top)]
    width = max(1.0, (WIDTH - LEFT - RIGHT) / max(len(days), 1) * 0.82)
    base = [0.0] * len(days)
    for number, each in enumerate(series):
        for index, value in enumerate(each.values):
            if value:
                low, high = _y(base[index], top), _y(base[index] + value, top)
                body.append(
                    f'<rect x="{_x(index, len(days)) - width / 2:.1f}" y="{high:.1f}" width="{width:.1f}" '
                    f'height="{low - high:.1f}" fill="{COLOURS[number % len(COLOURS)]}">'
                    f"<title>{days[index]} {escape(each.name)}: {value:,.0f}</title></rect>"
                )
                base[index] += value
    return _svg(body, ", ".join(each.name for each in series))


def bars(labels: Sequence[str], values: Sequence[float]) -> str:
    """A column per label."""
    top = _nice(max(values, default=0))
    body = [_grid(top)]
    step = (WIDTH - LEFT - RIGHT) / max(len(labels), 1)
    for index, (label, value) in enumerate(zip(labels, values, strict=True)):
        x, y = LEFT + step * index, _y(value, top)
        body.append(
            f'<rect x="{x + step * 0.12:.1f}" y="{y:.1f}" width="{step * 0.76:.1f}" height="{_y(0, top) - y:.1f}" '
            f'rx="2" fill="{COLOURS[0]}"><title>{escape(label)}: {value:,.0f}</title></rect>'
            f'<text x="{x + step / 2:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(label)}</text>'
        )
    return _svg(body, "histogram")


def legend(names: Sequence[str]) -> str:
    """The series' names with their colours."""
    items = (
        f'<span><i style="background:{COLOURS[number % len(COLOURS)]}"></i>{escape(name)}</span>'
        for number, name in enumerate(names)
    )
    return f'<p class="legend">{"".join(items)}</p>'


def _svg(body: Sequence[str], label: str) -> str:
    style = "text{font:13px system-ui,sans-serif;fill:currentColor;opacity:.7}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label, quote=True)}"><style>{style}</style>{"".join(body)}</svg>'
    )


def _frame(days: Sequence[date], top: float) -> str:
    marks = sorted({0, len(days) // 2, len(days) - 1}) if days else []
    anchors = {0: "start", len(days) - 1: "end"}
    labels = "".join(
        f'<text x="{_x(index, len(days)):.1f}" y="{HEIGHT - 8}" text-anchor="{anchors.get(index, "middle")}">'
        f"{days[index]:%d %b %Y}</text>"
        for index in marks
    )
    return _grid(top) + labels


def _grid(top: float) -> str:
    parts: list[str] = []
    for tick in range(TICKS + 1):
        value = top * tick / TICKS
        y = _y(value, top)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity=".12"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>'
        )
    return "".join(parts)


def _x(index: int, count: int) -> float:
    inner = WIDTH - LEFT - RIGHT - 12
    return LEFT + 6 + (inner / 2 if count < 2 else inner * index / (count - 1))


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value / top if top else 0))


def _nice(value: float) -> float:
    """The next of 4, 8, 12, ..., 80, 120, ... so that four ticks fall on round numbers."""
    scale = 1
    while True:
        for step in (4, 8, 12, 16, 20, 24, 32, 40, 60, 80):
            if step * scale >= value:
                return float(step * scale)
        scale *= 10


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"
