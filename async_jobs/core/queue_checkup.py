"""What `async-jobs doctor` makes of an SQS queue: found, needed, do this. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from async_jobs.core.checkup import Finding, finding

LEAST_RECEIVES = 10
"""A ticket is received again for as long as the database is away."""
DENIED = "AccessDenied"
ACTIONS = ("send", "receive", "delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSeen:
    """What a queue answered. `problem` is why its attributes could not be read, "" if they were."""

    use_case: str
    problem: str
    attributes: Mapping[str, str]
    refused: Sequence[str]


def queue_findings(
    seen: QueueSeen, *, dispatch_lease_seconds: float, visibility_seconds: float
) -> Iterator[Finding]:
    """Whether it is there, what this process may do with it, and how it is set."""
    yield _place(seen)
    if seen.problem and DENIED not in seen.problem:
        return
    yield _rights(seen)
    if seen.attributes:
        yield _settings(seen, dispatch_lease_seconds, visibility_seconds)


def _place(seen: QueueSeen) -> Finding:
    """A worker needs not read its attributes."""
    is_workers = DENIED in seen.problem and not {"receive", "delete"} & set(seen.refused)
    waiting = seen.attributes.get("ApproximateNumberOfMessages")
    found = f"there, {waiting} messages wait" if waiting else f"no answer: {seen.problem}"
    return finding(
        f"queue of {seen.use_case}",
        "there, its attributes may not be read" if is_workers else found,
        "there, and schedulers may read its attributes",
        not seen.problem or is_workers,
        _remedy(seen.problem, f"ASYNC_JOBS_SQS_QUEUE_{seen.use_case.upper()}"),
    )


def _remedy(problem: str, variable: str) -> str:
    if "NonExistentQueue" in problem or "QueueDoesNotExist" in problem:
        return f"create the queue, or correct {variable}"
    if DENIED in problem:
        return "allow sqs:GetQueueAttributes; a scheduler needs it to see how deep the queue is"
    return f"see that the endpoint in {variable} can be reached, and that there are credentials"


def _rights(seen: QueueSeen) -> Finding:
    """A scheduler sends, a worker receives and deletes; whoever calls may be either."""
    refused = set(seen.refused)
    enough = "send" not in refused or not refused & {"receive", "delete"}
    told = [f"{action} {'refused' if action in refused else 'allowed'}" for action in ACTIONS]
    return finding(
        f"rights of {seen.use_case}",
        ", ".join(told),
        "send for a scheduler, receive and delete for a worker",
        enough,
        "allow sqs:SendMessage, or sqs:ReceiveMessage and sqs:DeleteMessage; see deploy/iam",
    )


def _settings(seen: QueueSeen, lease_seconds: float, visibility_seconds: float) -> Finding:
    attributes = seen.attributes
    delay = int(attributes.get("DelaySeconds", "0"))
    retention = int(attributes.get("MessageRetentionPeriod", "345600"))
    receives = _most_receives(attributes)
    faults = [
        (delay > 0, "set DelaySeconds to 0: it delays every job"),
        (
            retention < lease_seconds,
            f"set MessageRetentionPeriod to {lease_seconds:.0f} or more: tickets are lost before "
            "their lease ends",
        ),
        (
            receives is not None and receives < LEAST_RECEIVES,
            f"raise maxReceiveCount to {LEAST_RECEIVES} or more, or do without: dead jobs are rows",
        ),
        ("FifoQueue" in attributes, "use a standard queue: a FIFO queue lets jobs wait in order"),
    ]
    wrong = [remedy for is_wrong, remedy in faults if is_wrong]
    redrive = "no redrive" if receives is None else f"redrive after {receives} receives"
    return finding(
        f"settings of {seen.use_case}",
        f"retention {retention} s, delay {delay} s, {redrive}, visibility "
        f"{attributes.get('VisibilityTimeout', '?')} s (each receive asks for "
        f"{visibility_seconds:.0f} s)",
        f"standard, retention {lease_seconds:.0f} s or more, no delay, {LEAST_RECEIVES} receives "
        "or more",
        not wrong,
        "; ".join(wrong),
    )


def _most_receives(attributes: Mapping[str, str]) -> int | None:
    policy = attributes.get("RedrivePolicy")
    return int(json.loads(policy)["maxReceiveCount"]) if policy else None
