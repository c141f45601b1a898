"""Draws simulations over time as an SVG: late starts, lateness, slots. Pure.

Three charts one below the other share the axis of time. Colours follow the reader's
light or dark mode by themselves, also where the file is shown as an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from async_jobs.simulation.tally import Bin, Figures

MOST_RUNS = 6
WIDTH, LEFT, RIGHT = 860, 64, 20
TOP, CHART, GAP, BOTTOM = 98, 132, 46, 40
TICKS = 4
TIME_TICKS = 8

_LIGHT = ("#0b62c4", "#c2410c", "#15803d", "#a21caf", "#8a6100", "#475569")
_DARK = ("#6cb6ff", "#ffa657", "#56d364", "#e58fff", "#e3c04d", "#a8b3c0")
_UNITS = ((3 * 3_600.0, 3_600.0, "h"), (300.0, 60.0, "min"), (0.0, 1.0, "s"))


@dataclass(frozen=True, slots=True)
class Drawn:
    """One simulation of the picture."""

    label: str
    capacity: int
    figures: Figures


_Value = Callable[[Bin, float], float | None]
"""What is shown of a bin of so many seconds; None: nothing."""


@dataclass(frozen=True, slots=True)
class _Chart:
    """One of the charts: its heading, what it shows, its place and the top of its scale."""

    heading: str
    value: _Value
    top: int
    most: float

    def y(self, value: float) -> float:
        return self.top + CHART * (1 - value / self.most)


def draw(title: str, runs: Sequence[Drawn]) -> str:
    """The picture of up to six runs of one workload."""
    shown = runs[:MOST_RUNS]
    seconds = max(len(run.figures.bins) * run.figures.bin_seconds for run in shown)
    charts = _charts(shown)
    height = TOP + len(charts) * (CHART + GAP) - GAP + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">',
        _style(),
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="{LEFT}" y="28">{escape(title)}</text>',
        *_legend(shown),
    ]
    for chart in charts:
        parts += _frame(chart, seconds)
        for number, run in enumerate(shown):
            parts += _lines(chart, run.figures, seconds, number)
    parts += _capacities(charts[-1], shown)
    parts += _time_labels(charts[-1], seconds)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _charts(runs: Sequence[Drawn]) -> list[_Chart]:
    """The charts, each with a scale that fits all runs."""
    kinds: tuple[tuple[str, _Value, float], ...] = (
        ("Late starts, % of the starts", _late, 1.0),
        ("Worst lateness of a start, seconds", _worst, 1.0),
        ("Slots in use, mean", _slots, float(max(run.capacity for run in runs))),
    )
    return [
        _Chart(heading, value, TOP + number * (CHART + GAP), _scale(runs, value, least))
        for number, (heading, value, least) in enumerate(kinds)
    ]


def _late(each: Bin, seconds: float) -> float | None:
    return 100 * each.late / each.starts if each.starts else None


def _worst(each: Bin, seconds: float) -> float | None:
    return each.worst_seconds if each.starts else None


def _slots(each: Bin, seconds: float) -> float | None:
    return each.busy_seconds / seconds


def _scale(runs: Iterable[Drawn], value: _Value, least: float) -> float:
    shown = (
        value(each, run.figures.bin_seconds) or 0.0 for run in runs for each in run.figures.bins
    )
    most = max(least, *shown)
    step = _step(most, TICKS)
    return step * math.ceil(most / step)


def _style() -> str:
    light = _colours("#ffffff", "#1f2328", "#59636e", "#dfe3e8", _LIGHT)
    dark = _colours("#0d1117", "#e6edf3", "#9da7b3", "#2b313a", _DARK)
    return (
        "<style>text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif}"
        ".title{font-size:15px;font-weight:600}.heading{font-weight:600}"
        ".line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}"
        ".grid{stroke-width:1}.bound{stroke-width:1.2;stroke-dasharray:5 4}"
        f"{light}@media (prefers-color-scheme:dark){{{dark}}}</style>"
    )


def _colours(ground: str, text: str, label: str, grid: str, lines: Sequence[str]) -> str:
    runs = "".join(f".run{number}{{stroke:{each}}}" for number, each in enumerate(lines))
    return (
        f".ground{{fill:{ground}}}.title,.heading,.name{{fill:{text}}}.label{{fill:{label}}}"
        f".grid{{stroke:{grid}}}{runs}"
    )


def _legend(runs: Sequence[Drawn]) -> Iterator[str]:
    x = LEFT
    for number, run in enumerate(runs):
        yield f'<path class="line run{number}" d="M{x} 50h22"/>'
        yield f'<text class="name" x="{x + 28}" y="54">{escape(run.label)}</text>'
        x += 50 + 7 * len(run.label)


def _frame(chart: _Chart, seconds: float) -> Iterator[str]:
    """Heading, grid and labels of a chart."""
    yield f'<text class="heading" x="{LEFT}" y="{chart.top - 8}">{escape(chart.heading)}</text>'
    step = _step(chart.most, TICKS)
    for number in range(round(chart.most / step) + 1):
        y = chart.y(number * step)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield (
            f'<text class="label" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{number * step:g}</text>"
        )
    for at, _ in _times(seconds):
        x = _x(at / seconds)
        yield f'<path class="grid" d="M{x:.1f} {chart.top}v{CHART}"/>'


def _lines(chart: _Chart, figures: Figures, seconds: float, number: int) -> Iterator[str]:
    """A run's line, interrupted where there is nothing to show."""
    path: list[str] = []
    joined = False
    for index, each in enumerate(figures.bins):
        value = chart.value(each, figures.bin_seconds)
        if value is not None:
            x = _x((index + 0.5) * figures.bin_seconds / seconds)
            path.append(f"{'L' if joined else 'M'}{x:.1f} {chart.y(value):.1f}")
        joined = value is not None
    if path:
        yield f'<path class="line run{number}" d="{"".join(path)}"/>'


def _capacities(chart: _Chart, runs: Sequence[Drawn]) -> Iterator[str]:
    """Dashed lines where the capacities are."""
    for capacity in sorted({run.capacity for run in runs}):
        number = next(at for at, run in enumerate(runs) if run.capacity == capacity)
        y = chart.y(capacity)
        yield f'<path class="bound run{number}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield (
            f'<text class="label" x="{WIDTH - RIGHT}" y="{y - 4:.1f}" text-anchor="end">'
            f"capacity {capacity}</text>"
        )


def _time_labels(chart: _Chart, seconds: float) -> Iterator[str]:
    for at, label in _times(seconds):
        yield (
            f'<text class="label" x="{_x(at / seconds):.1f}" y="{chart.top + CHART + 18}" '
            f'text-anchor="middle">{label}</text>'
        )


def _times(seconds: float) -> Iterator[tuple[float, str]]:
    """Where the axis of time has its labels, in the unit that suits the span."""
    unit, name = next((unit, name) for least, unit, name in _UNITS if seconds >= least)
    step = _step(seconds / unit, TIME_TICKS)
    for number in range(int(seconds / unit / step) + 1):
        yield number * step * unit, f"{number * step:g} {name}"


def _step(most: float, ticks: int) -> float:
    """1, 2 or 5 times a power of ten, so that at most *ticks* steps reach *most*."""
    power = 10.0 ** math.floor(math.log10(most / ticks))
    return next(times * power for times in (1, 2, 5, 10) if times * power * ticks >= most)


def _x(part: float) -> float:
    return LEFT + part * (WIDTH - LEFT - RIGHT)
