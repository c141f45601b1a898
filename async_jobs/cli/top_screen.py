"""How `async-jobs top` looks: a screen of 80 columns or more, or plain lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from async_jobs.core.top import Sample, UseCaseNow

KEYS = ("late", "below_10s", "below_1min", "below_10min", "below_1h", "over_1h")
_STYLES = {"page": "bold red", "ticket": "yellow"}


class Screen(AbstractContextManager["Screen"]):
    """The whole terminal, given back as it was; with *once* what it shows stays there."""

    def __init__(self, *, once: bool) -> None:
        from rich.console import Console

        self._console = Console()
        self._once = once
        self._last: Sample | None = None
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        from rich.live import Live

        if not self._once:
            self._live = Live(console=self._console, screen=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, found: Sample | None, now: datetime) -> None:
        """Show *found*; None says that the database gave no answer."""
        self._last = found or self._last
        shown = drawn(self._last, now, is_fresh=found is not None)
        if self._live is None:
            self._console.print(shown)
        else:
            self._live.update(shown, refresh=True)


def drawn(found: Sample | None, now: datetime, *, is_fresh: bool) -> RenderableType:
    """The whole picture; what is not fresh is shown with a warning above it."""
    from rich.console import Group

    parts: list[RenderableType] = [_head(found, now, is_fresh=is_fresh)]
    if found is not None:
        parts += [_use_cases(found), "", _slack(found)]
    return Group(*parts)


def _head(found: Sample | None, now: datetime, *, is_fresh: bool) -> Text:
    from rich.text import Text

    text = Text(f"async-jobs top  {now:%H:%M:%S} UTC", style="bold")
    if found is not None:
        for number, name in ((found.schedulers, "scheduler"), (found.workers, "worker")):
            text.append(f"  {_counted(number, name)}", style="" if number else "bold red")
        text.append(f"  {found.gone} gone" if found.gone else "", style="yellow")
    if not is_fresh:
        since = f"; below: {found.at:%H:%M:%S}" if found else ""
        text.append(f"\nThe database gives no answer{since}", style="bold red")
    return text.append("\n")


def _use_cases(found: Sample) -> Table:
    from rich.text import Text

    headings = ("waiting", "late", "in flight", "oldest due", "kept 1 h", "state")
    table = _table("use case", headings)
    for each in found.use_cases:
        late = Text(_many(each.late, each.cut and each.slack[0].cut))
        late.stylize("bold red" if each.late else "dim")
        full = "yellow" if each.in_flight >= each.capacity else ""
        table.add_row(
            Text(each.use_case),
            _many(each.waiting, each.cut),
            late,
            Text(f"{each.in_flight} of {each.capacity}", style=full),
            _age(each.oldest_due_seconds) if each.waiting else "-",
            _share(each.kept_share),
            Text(_state(each), style=_STYLES.get(each.alert, "")),
        )
    return table


def _slack(found: Sample) -> Table:
    from rich.text import Text

    first = found.use_cases[0].slack if found.use_cases else ()
    table = _table("time left", [band.label for band in first])
    for each in found.use_cases:
        cells = [Text(_many(band.jobs, band.cut), style=_shade(band.jobs)) for band in each.slack]
        if each.late:
            cells[0].stylize("bold red")
        table.add_row(Text(each.use_case), *cells)
    return table


def _table(first: str, headings: tuple[str, ...] | list[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True, overflow="ellipsis", min_width=9, max_width=20)
    for heading in headings:
        justify = "left" if heading == "state" else "right"
        table.add_column(heading, no_wrap=True, justify=justify)  # type: ignore[arg-type] # one of two words
    return table


def plain_lines(found: Sample | None, now: datetime) -> Iterator[str]:
    """`use_case=mail waiting=12 ...`: a line for each use case, then one for the processes."""
    if found is None:
        yield f"at={now:%Y-%m-%dT%H:%M:%SZ} database=no_answer"
        return
    at = f"at={found.at:%Y-%m-%dT%H:%M:%SZ}"
    for each in found.use_cases:
        slack = " ".join(
            f"{key}={_many(band.jobs, band.cut)}"
            for key, band in zip(KEYS, each.slack, strict=True)
        )
        yield (
            f"{at} use_case={each.use_case} waiting={_many(each.waiting, each.cut)} {slack} "
            f"in_flight={each.in_flight} capacity={each.capacity} "
            f"oldest_due={each.oldest_due_seconds:.1f}s kept_1h={_share(each.kept_share)} "
            f"alert={each.alert} paused={'yes' if each.paused_by else 'no'}"
        )
    yield f"{at} schedulers={found.schedulers} workers={found.workers} gone={found.gone}"


def _state(each: UseCaseNow) -> str:
    if each.paused_by is not None:
        return "paused"
    return "ok" if each.alert == "none" else each.alert


def _shade(jobs: int) -> str:
    return "" if jobs else "dim"


def _counted(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _many(number: int, cut: bool) -> str:
    return f"{number}{'+' if cut else ''}"


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"
