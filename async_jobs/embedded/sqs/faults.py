"""Faults that the server shows on request, so that clients can be tested against them.

A `Fault` says what goes wrong, where (queue, operations) and how often
(probability, at most `count` times, not before `skip` matching requests). With a
seed, the same requests in the same order meet the same faults: every fault draws
from a random source of its own.

The server asks `gate` before an operation; the operations ask `fires` for what
happens to single messages. Faults may be added from any thread.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

from async_jobs.embedded.sqs.refusal import SHAPES, Refused

SENDS = ("SendMessage", "SendMessageBatch")
DELETES = ("DeleteMessage", "DeleteMessageBatch")
BATCHES = ("SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch")
RECEIVES = ("ReceiveMessage",)


class Kind(StrEnum):
    """What can go wrong. The value is the name used over HTTP."""

    THROTTLE = "throttle"
    SERVER_ERROR = "server_error"
    ACCESS_DENIED = "access_denied"
    DELAY = "delay"
    HANG = "hang"
    RESET = "reset"
    AFTER_SEND_RESET = "after_send_reset"
    PARTIAL_FAILURE = "partial_failure"
    LOSE = "lose"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    IGNORE_DELETE = "ignore_delete"


_OPERATIONS: Mapping[Kind, tuple[str, ...]] = {
    Kind.AFTER_SEND_RESET: SENDS,
    Kind.PARTIAL_FAILURE: BATCHES,
    Kind.LOSE: SENDS,
    Kind.DUPLICATE: SENDS,
    Kind.REORDER: RECEIVES,
    Kind.IGNORE_DELETE: DELETES,
}
"""The operations a fault concerns if it names none; a kind not here concerns all."""

_ERRORS: Mapping[Kind, str] = {
    Kind.THROTTLE: "RequestThrottled",
    Kind.SERVER_ERROR: "ServiceUnavailable",
    Kind.ACCESS_DENIED: "AccessDeniedException",
    Kind.PARTIAL_FAILURE: "InternalFailure",
}
"""The error a fault answers with if it names none."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    *queue* and *operations* narrow where; None and () mean everywhere the kind
    makes sense. *allow* lists the operations that `access_denied` lets through.
    *error* is a key of `SHAPES`. A `delay` lasts *seconds*, or a random time from
    *seconds* to *most_seconds*. Raises ValueError for values that make no sense.
    """

    kind: Kind
    probability: float = 1.0
    count: int | None = None
    skip: int = 0
    queue: str | None = None
    operations: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    error: str | None = None
    seconds: float = 1.0
    most_seconds: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", Kind(self.kind))
        object.__setattr__(self, "operations", tuple(self.operations))
        object.__setattr__(self, "allow", tuple(self.allow))
        if not 0 <= self.probability <= 1:
            raise ValueError("probability is a number from 0 to 1")
        if self.seconds < 0 or (self.most_seconds is not None and self.most_seconds < self.seconds):
            raise ValueError("seconds is not negative, and most_seconds is not less than seconds")
        if self.error is not None and self.error not in SHAPES:
            raise ValueError(f"error is one of {', '.join(SHAPES)}")

    def concerns(self, operation: str, queue: str | None) -> bool:
        """Whether this operation on this queue may meet the fault."""
        if self.queue is not None and self.queue != queue:
            return False
        operations = self.operations or _OPERATIONS.get(self.kind, ())
        return operation not in self.allow and (not operations or operation in operations)

    def refusal(self) -> Refused:
        """The error this fault answers with."""
        return Refused(
            self.error or _ERRORS.get(self.kind, "InternalFailure"),
            f"The server was told to fail: fault {self.kind}.",
        )


@dataclass(slots=True)
class _Armed:
    """A fault that is switched on, with its random source and how often it was met."""

    fault: Fault
    rng: random.Random
    seen: int = 0
    fired: int = 0

    def draw(self) -> bool:
        """Whether it happens this time."""
        self.seen += 1
        fault = self.fault
        happens = self.rng.random() < fault.probability
        if self.seen <= fault.skip or (fault.count is not None and self.fired >= fault.count):
            return False
        self.fired += happens
        return happens


@dataclass(slots=True)
class Gate:
    """What happens to a request as a whole."""

    delay_seconds: float = 0.0
    refusal: Refused | None = None
    hangs: bool = False
    resets: bool = False
    resets_after: bool = False
    shuffles: random.Random | None = field(default=None)


class Faults:
    """The faults that are switched on; none at first."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._armed: tuple[_Armed, ...] = ()

    @property
    def seed(self) -> int:
        return self._seed

    def __bool__(self) -> bool:
        return bool(self._armed)

    def add(
        self,
        kind: Kind | str,
        *,
        probability: float = 1.0,
        count: int | None = None,
        skip: int = 0,
        queue: str | None = None,
        operations: Iterable[str] = (),
        allow: Iterable[str] = (),
        error: str | None = None,
        seconds: float = 1.0,
        most_seconds: float | None = None,
    ) -> Fault:
        """Switch a fault on and return it; see `Fault` for the arguments."""
        fault = Fault(
            kind=Kind(kind),
            probability=probability,
            count=count,
            skip=skip,
            queue=queue,
            operations=tuple(operations),
            allow=tuple(allow),
            error=error,
            seconds=seconds,
            most_seconds=most_seconds,
        )
        self._arm(fault)
        return fault

    def replace(self, faults: Iterable[Fault], seed: int | None = None) -> None:
        """Switch exactly these faults on, all counters at zero."""
        self._seed = self._seed if seed is None else seed
        self._armed = ()
        for fault in faults:
            self._arm(fault)

    def clear(self, kind: Kind | str | None = None) -> None:
        """Switch all faults off, or those of one kind."""
        self._armed = tuple(a for a in self._armed if kind is not None and a.fault.kind != kind)

    def fired(self, kind: Kind | str) -> int:
        """How often the faults of *kind* that are switched on have happened."""
        return sum(armed.fired for armed in self._armed if armed.fault.kind == kind)

    def describe(self) -> dict[str, object]:
        """Seed and faults as the HTTP control answers them."""
        listed = [
            {each.name: getattr(armed.fault, each.name) for each in fields(Fault)}
            | {"seen": armed.seen, "fired": armed.fired}
            for armed in self._armed
        ]
        return {"seed": self._seed, "faults": listed}

    def fires(self, kind: Kind, operation: str, queue: str) -> Fault | None:
        """The fault of *kind* that happens to one message or entry of this request, or None."""
        for armed in self._armed:
            fault = armed.fault
            if fault.kind is kind and fault.concerns(operation, queue) and armed.draw():
                return fault
        return None

    def gate(self, operation: str, queue: str | None) -> Gate:
        """What happens to this request as a whole; every matching fault draws once."""
        gate = Gate()
        for armed in self._armed:
            fault = armed.fault
            if fault.kind in _GATES and fault.concerns(operation, queue) and armed.draw():
                _pass(gate, armed)
        return gate

    def _arm(self, fault: Fault) -> None:
        source = f"{self._seed}:{len(self._armed)}:{fault.kind}"
        self._armed = (*self._armed, _Armed(fault, random.Random(source)))


_GATES = {
    Kind.THROTTLE,
    Kind.SERVER_ERROR,
    Kind.ACCESS_DENIED,
    Kind.DELAY,
    Kind.HANG,
    Kind.RESET,
    Kind.AFTER_SEND_RESET,
    Kind.REORDER,
}


def _pass(gate: Gate, armed: _Armed) -> None:
    fault = armed.fault
    match fault.kind:
        case Kind.DELAY:
            gate.delay_seconds += armed.rng.uniform(
                fault.seconds, fault.most_seconds or fault.seconds
            )
        case Kind.HANG:
            gate.hangs = True
        case Kind.RESET:
            gate.resets = True
        case Kind.AFTER_SEND_RESET:
            gate.resets_after = True
        case Kind.REORDER:
            gate.shuffles = armed.rng
        case _:
            gate.refusal = gate.refusal or fault.refusal()
