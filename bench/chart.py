"""Draws figures of a run as an SVG of bars, one for each contestant; ours stand out. Pure.

Colours follow the reader's light or dark mode by themselves, also where the file is shown
as an image. The same figures give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

from bench.table import HEADINGS, Line

WIDTH, LEFT, RIGHT = 860, 170, 110
TOP, HEAD, BAR, GAP, BOTTOM = 52, 26, 18, 6, 16
OURS = "async-jobs"

_STYLE = (
    "<style>text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}"
    ".title{font-size:15px;font-weight:600}.heading{font-weight:600}.name{text-anchor:end}"
    ".ground{fill:#ffffff}.peer{fill:#b6c2cf}.ours{fill:#0b62c4}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.ground{fill:#0d1117}"
    ".peer{fill:#3d4855}.ours{fill:#6cb6ff}}</style>"
)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a picture shows: one figure of one measurement, a group of bars for each case."""

    file: str
    measure: str
    key: str
    unit: str


PICTURES = (
    Shown("drain", "drain", "rate", "jobs/s, more is better"),
    Shown("enqueue", "enqueue", "rate", "jobs/s, more is better"),
    Shown("latency", "latency", "p50_ms", "ms in the median, less is better"),
)


def pictures(lines: Sequence[Line]) -> dict[str, str]:
    """The pictures that *lines* have figures for, by the name of their file."""
    found = {}
    for shown in PICTURES:
        if groups := _groups(shown, lines):
            title = f"{HEADINGS[shown.measure].partition(':')[0]}, {shown.unit}"
            found[shown.file] = draw(title, groups)
    return found


def _groups(shown: Shown, lines: Sequence[Line]) -> dict[str, dict[str, float]]:
    """The medians by case and contestant."""
    values: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        value = line.get(shown.key)
        if line["measure"] == shown.measure and isinstance(value, int | float):
            case = values.setdefault(str(line["case"]), {})
            case.setdefault(str(line["contestant"]), []).append(value)
    return {
        case: {name: median(rounds) for name, rounds in contestants.items()}
        for case, contestants in values.items()
    }


def draw(title: str, groups: dict[str, dict[str, float]]) -> str:
    """Bars of *groups*: case, then contestant and value. Each case has a scale of its own."""
    height = TOP + BOTTOM + sum(HEAD + len(bars) * (BAR + GAP) + GAP for bars in groups.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">',
        _STYLE,
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="24" y="30">{escape(title)}</text>',
    ]
    top = TOP
    for case, bars in groups.items():
        parts += _group(case, bars, top)
        top += HEAD + len(bars) * (BAR + GAP) + GAP
    return "\n".join([*parts, "</svg>"]) + "\n"


def _group(case: str, bars: dict[str, float], top: int) -> Iterator[str]:
    yield f'<text class="heading" x="24" y="{top + 14}">{escape(case)}</text>'
    most = max(bars.values()) or 1.0
    for number, (name, value) in enumerate(bars.items()):
        y = top + HEAD + number * (BAR + GAP)
        width = max(1.0, (WIDTH - LEFT - RIGHT) * value / most)
        kind = "ours" if name.startswith(OURS) else "peer"
        digits = 0 if value >= 100 else 1
        yield f'<text class="name" x="{LEFT - 8}" y="{y + 13}">{escape(name)}</text>'
        yield (
            f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="3"/>'
        )
        yield f'<text x="{LEFT + width + 8:.1f}" y="{y + 13}">{value:,.{digits}f}</text>'
