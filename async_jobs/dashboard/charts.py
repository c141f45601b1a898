"""The slack chart and its small relatives, as SVG without styles or scripts. Pure.

Time runs from left to right: what is late stands left of the line that is now, in red, and the
further right a job stands, the more time is left for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from async_jobs.core.demand import Step

BANDS = (
    (0.0, "late"),
    (10.0, "0–10 s"),
    (60.0, "10–60 s"),
    (600.0, "1–10 min"),
    (3_600.0, "10–60 min"),
    (math.inf, "over 1 h"),
)
WIDTH, HEIGHT, FLOOR, TOP = 480, 150, 118, 22


@dataclass(frozen=True, slots=True)
class Band:
    """Waiting jobs by the time that is left for them."""

    label: str
    jobs: int
    cut: bool


def bands(steps: Sequence[Step]) -> list[Band]:
    """The steps of a demand in six bands, late ones first."""
    found = []
    after = -math.inf
    for until, label in BANDS:
        inside = [step for step in steps if after < step.until_seconds <= until]
        found.append(Band(label, sum(each.jobs for each in inside), any(e.cut for e in inside)))
        after = until
    return found


def slack_chart(shown: Sequence[Band], title: str) -> Markup:
    """A bar for each band. Heights grow with the square root: few stay visible beside many."""
    most = max((math.sqrt(band.jobs) for band in shown), default=0) or 1.0
    width = WIDTH / len(shown)
    parts = [
        f'<svg class="slack" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(_told(title, shown))}">',
        f'<rect class="past" x="0" y="0" width="{width:.1f}" height="{FLOOR}"/>',
    ]
    for number, band in enumerate(shown):
        height = 0.0 if not band.jobs else max(3.0, (FLOOR - TOP) * math.sqrt(band.jobs) / most)
        left, middle = number * width + 9, (number + 0.5) * width
        parts.append(
            f'<rect class="band band{number}" x="{left:.1f}" y="{FLOOR - height:.1f}" '
            f'width="{width - 18:.1f}" height="{height:.1f}" rx="4"/>'
            f'<text class="count" x="{middle:.1f}" y="{FLOOR - height - 6:.1f}">'
            f"{_count(band)}</text>"
            f'<text class="axis" x="{middle:.1f}" y="{HEIGHT - 12}">{escape(band.label)}</text>'
        )
    parts.append(f'<line class="floor" x1="0" y1="{FLOOR}" x2="{WIDTH}" y2="{FLOOR}"/>')
    parts.append(f'<line class="now" x1="{width:.1f}" y1="0" x2="{width:.1f}" y2="{FLOOR + 6}"/>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 # numbers and escaped texts only


def meter(part: float, whole: float, title: str) -> Markup:
    """How much of the whole is used."""
    share = 0.0 if not whole else min(1.0, part / whole)
    return Markup(  # noqa: S704 # numbers and an escaped text only
        f'<svg class="meter" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}"><rect class="rail" width="100" height="6"/>'
        f'<rect class="{"full" if share >= 1 else "part"}" width="{100 * share:.1f}" height="6"/>'
        "</svg>"
    )


def histogram(labels: Sequence[str], buckets: Sequence[int], title: str) -> Markup:
    """One bar for each bucket; the label shows when one points at it."""
    most = max(buckets, default=0) or 1
    width = 100 / max(1, len(buckets))
    bars = "".join(
        f'<rect x="{number * width + 0.4:.2f}" y="{30 - 28 * jobs / most:.1f}" '
        f'width="{width - 0.8:.2f}" height="{28 * jobs / most:.1f}">'
        f"<title>{escape(label)}: {jobs}</title></rect>"
        for number, (label, jobs) in enumerate(zip(labels, buckets, strict=True))
    )
    return Markup(  # noqa: S704 # numbers and escaped texts only
        f'<svg class="histogram" viewBox="0 0 100 31" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{bars}</svg>'
    )


def _count(band: Band) -> str:
    return "" if not band.jobs else f"{band.jobs:,}{'+' if band.cut else ''}"


def _told(title: str, shown: Sequence[Band]) -> str:
    counts = ", ".join(f"{band.label}: {_count(band) or 0}" for band in shown)
    return f"{title}: waiting jobs by time left. {counts}"
