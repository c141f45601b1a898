"""What must hold at every step of the model, each with the sentence it stands for."""

from __future__ import annotations

from collections.abc import Iterator

from model.lease import BUSY, LIVE, NONE, PENDING, RUNNING, Job, Step

PROPERTIES = {
    "one start for each lease": "A second delivery of a ticket finds the door shut.",
    "starts under a live lease only": "What rescue may take back at any moment is not started.",
    "only the holder writes": "An attempt that lost its lease can no longer change the job.",
    "a live lease is its holder's": "Nobody else takes or renews it; a cancel may.",
    "the fence grows": "Each lease has a larger number than all before it.",
    "an end is final": "Only an operator's requeue leads out of succeeded, dead and cancelled.",
    "no start after a cancel": "Once a cancel was acknowledged no attempt starts.",
    "attempts are starts": "It counts the starts that were not given back, up to max_attempts.",
    "attempts overlap after a lapse only": "Two handlers run at once only after a lease ran out.",
    "the row makes sense": "Due waits without a lease, running holds one, finished holds none.",
    "it always can go on": "From everywhere the job can still finish, without an operator.",
}

_REPORTS = {
    *("succeed", "bury", "end cancelled", "retry", "retry at once", "snooze"),
    "release an attempt",
}
_TICKET_MOVES = {"release a ticket", "renew a ticket"}


def broken_by(before: Job, step: Step) -> Iterator[str]:
    """The properties that *step*, taken in *before*, breaks."""
    after = step.job
    if step.move == "start":
        yield from _broken_by_start(before, step)
    if step.move in _REPORTS or step.move == "extend":
        if before.holder != step.lease_seq:
            yield "only the holder writes"
    elif _takes_a_live_lease(before, step):
        yield "a live lease is its holder's"
    if step.move == "claim":
        yield from _broken_by_start(before._replace(lease=LIVE), step)
    if step.move in ("lease", "claim") and after.lease_seq <= before.highest:
        yield "the fence grows"
    if after.lease_seq < before.lease_seq:
        yield "the fence grows"
    if before.finished and after.status != before.status and step.move != "requeue":
        yield "an end is final"
    if not after.attempts == after.used <= after.max_attempts:
        yield "attempts are starts"
    if not _makes_sense(after):
        yield "the row makes sense"


def _broken_by_start(before: Job, step: Step) -> Iterator[str]:
    if any(run.lease_seq == step.lease_seq for run in before.runs):
        yield "one start for each lease"
    if before.lease != LIVE:
        yield "starts under a live lease only"
    if before.acknowledged:
        yield "no start after a cancel"
    if any(run.state == BUSY and run.lease_seq not in before.lapsed for run in before.runs):
        yield "attempts overlap after a lapse only"


def _takes_a_live_lease(before: Job, step: Step) -> bool:
    """Whether *step*, which is no report, ends or renews a live lease of somebody else."""
    if before.lease != LIVE or step.move in ("start", "time passes"):
        return False
    if step.move == "cancel":
        return before.status == RUNNING and step.job.lease == NONE
    if step.move in _TICKET_MOVES:
        return before.lease_seq != step.lease_seq or before.status == RUNNING
    return step.job.lease != LIVE or step.job.status != before.status


def _makes_sense(job: Job) -> bool:
    if job.due and (job.status != PENDING or job.lease != NONE):
        return False
    if job.status == RUNNING and job.lease == NONE:
        return False
    return not (job.finished and job.lease != NONE)
