"""How long jobs run, on average, by flow: moving averages of what was measured. Pure.

They turn "so much above its share" into seconds of postponement, and work that
waits into a time when it will have started. Unknown flows are taken for the
average of their type, unknown types for the average of all, and before anything
was measured for `UNKNOWN_SECONDS`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from async_jobs.core.fairness import Flow

UNKNOWN_SECONDS = 1.0
NEWEST_COUNTS = 0.1
NEWEST_COUNTS_OF_MANY = 0.01
MOST_FLOWS = 10_000

_ALL = ("", "")


@dataclass(slots=True)
class RunTimes:
    """Moving averages (exponential; the newest run counts a tenth, a hundredth of a type's)."""

    measured: int = 0
    _means: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)

    def add(self, tenant_id: str, type: str, seconds: float) -> None:
        """A job of *type* of this tenant ran for *seconds*."""
        self.measured += 1
        self._move((tenant_id, type), seconds, NEWEST_COUNTS)
        self._move(("", type), seconds, NEWEST_COUNTS_OF_MANY)
        self._move(_ALL, seconds, NEWEST_COUNTS_OF_MANY)

    def mean_seconds(self, flow: Flow) -> float:
        """What a job of *flow* is expected to run."""
        for key in ((flow.tenant_id, flow.type), ("", flow.type)):
            if (mean := self._means.get(key)) is not None:
                return mean
        return self.overall_seconds

    @property
    def overall_seconds(self) -> float:
        """What any job is expected to run."""
        return self._means.get(_ALL, UNKNOWN_SECONDS)

    def _move(self, key: tuple[str, str], seconds: float, part: float) -> None:
        mean = self._means.get(key, seconds)
        self._means[key] = mean + part * (seconds - mean)
        self._means.move_to_end(key)
        if len(self._means) > MOST_FLOWS:
            self._means.popitem(last=False)
