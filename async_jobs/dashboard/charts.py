"""The slack chart and its small relatives, as SVG without styles or scripts. Pure.

Time runs from left to right: what is late stands left of the line that is now, in red, and the
further right a job stands, the more time is left for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from async_jobs.core.demand import Band
from async_jobs.core.slo_report import Minute
from async_jobs.dashboard.wording import duration

WIDTH, HEIGHT, FLOOR, TOP = 480, 150, 118, 22
MINUTES, LINE_WIDTH, LINE_TOP, LINE_BELOW = 60, 960, 80, 30


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


def timeline(minutes: Sequence[Minute]) -> Markup | None:
    """First starts in each of the last 60 minutes, late ones in red; below, how late on average.

    None if nothing started: there is nothing to draw.
    """
    if not minutes:
        return None
    most = max(1, *(each.started for each in minutes))
    latest = max(each.mean_lateness_seconds for each in minutes)
    width = LINE_WIDTH / MINUTES
    parts = []
    for each in minutes:
        if not 0 <= each.minutes_ago < MINUTES:
            continue
        left = (MINUTES - 1 - each.minutes_ago) * width + 1
        whole, late = (LINE_TOP * part / most for part in (each.started, each.late))
        lag = LINE_BELOW * each.mean_lateness_seconds / latest if latest else 0.0
        said = f"{each.minutes_ago} min ago: {each.started:,} started, {each.late:,} late"
        if each.late:
            said += f" by {duration(each.mean_lateness_seconds)} on average"
        parts.append(
            f"<g><title>{escape(said)}</title>"
            + _bar("started", left, LINE_TOP - whole, width - 2, whole - late)
            + _bar("late", left, LINE_TOP - late, width - 2, late)
            + _bar("lag", left, LINE_TOP + 6, width - 2, lag)
            + "</g>"
        )
    total, late_jobs = sum(each.started for each in minutes), sum(each.late for each in minutes)
    title = (
        f"First starts in the last hour, by minute: {total:,}, of which {late_jobs:,} late; "
        f"at most {most:,} in a minute, at most {duration(latest)} late on average"
    )
    return Markup(  # noqa: S704 # numbers and escaped texts only
        f'<svg class="timeline" viewBox="0 0 {LINE_WIDTH} {LINE_TOP + 8 + LINE_BELOW}" '
        f'preserveAspectRatio="none" role="img" aria-label="{escape(title)}">'
        f'<line class="floor" x1="0" y1="{LINE_TOP + 3}" x2="{LINE_WIDTH}" y2="{LINE_TOP + 3}"/>'
        f"{''.join(parts)}</svg>"
        f"<figcaption>{escape(title)}</figcaption>"
    )


def _bar(kind: str, left: float, top: float, width: float, height: float) -> str:
    if height <= 0:
        return ""
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}"/>'
    )


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
