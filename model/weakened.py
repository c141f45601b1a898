"""Designs that are weaker by one guard, and the property that each of them breaks."""

from __future__ import annotations

from typing import NamedTuple

from model.lease import Design


class Weakened(NamedTuple):
    """A switch of `Design`, what it stands for, and the property that has to catch it."""

    switch: str
    means: str
    breaks: str

    @property
    def design(self) -> Design:
        return Design(**{self.switch: True})


_HOLDER = "only the holder writes"
_LIVE_LEASE = "a live lease is its holder's"
_CANCEL = "no start after a cancel"
_ONE_START = "one start for each lease"
_FINAL = "an end is final"

WEAKENED = (
    Weakened("finish_without_fence", "an outcome counts for whatever runs", _HOLDER),
    Weakened("finish_by_live_lease", "a look at the clock instead of the fence", _HOLDER),
    Weakened("finish_by_attempt", "the attempt number as the fence", _HOLDER),
    Weakened("finish_ignores_status", "an outcome overwrites an end, as a cancel", _FINAL),
    Weakened("finish_forgets_cancel", "a retry after a cancel was asked for", _CANCEL),
    Weakened("start_in_two_steps", "look, then start, without comparing again", _ONE_START),
    Weakened(
        "start_on_lapsed_lease",
        "a start does not look at the time",
        "starts under a live lease only",
    ),
    Weakened("start_ignores_lease", "a start by the number alone", _ONE_START),
    Weakened(
        "start_ignores_status",
        "a start of what runs already",
        "attempts overlap after a lapse only",
    ),
    Weakened("extend_without_fence", "a heartbeat renews the lease of another", _HOLDER),
    Weakened(
        "extend_ignores_status", "a heartbeat after its attempt is over", "the row makes sense"
    ),
    Weakened("release_without_fence", "an old ticket is given back", _LIVE_LEASE),
    Weakened("release_ignores_status", "the ticket of a running job is given back", _LIVE_LEASE),
    Weakened("rescue_ignores_time", "a rescue before the lease ran out", _LIVE_LEASE),
    Weakened("rescue_in_two_steps", "a rescue writes by what it read before", _FINAL),
    Weakened("rescue_forgets_cancel", "a cancelled job waits again", _CANCEL),
    Weakened("rescue_gives_attempts_back", "a lost worker costs no attempt", "attempts are starts"),
    Weakened("rescue_never", "nobody takes leases back", "it always can go on"),
    Weakened("lease_keeps_number", "a new lease under the old number", "the fence grows"),
    Weakened("lease_counts_attempt", "attempts count leases", "attempts are starts"),
    Weakened("snooze_lowers_fence", "the fence is given back as well", "the fence grows"),
    Weakened("cancel_keeps_lease", "a cancelled job keeps its slot", "the row makes sense"),
    Weakened("cancel_ends_running", "a cancel takes the job from its worker", _LIVE_LEASE),
    Weakened("requeue_any", "an unfinished job is requeued", "the row makes sense"),
)
