"""Dispatch one use case: count, share out, lease, send, release what did not leave.

A pass is one turn (`store/turn.py`) and one send. The lease is committed before
anything is sent: a crash in between costs nothing but that lease, which soon runs
out and is rescued (`outstanding.py`). What a queue does not accept is released at once, with
`enqueue_failed` set until the next lease.

The pass says what to do next, so that slots refill when they free and not at
the next tick: again at once while work and slots are left, soon while the use case
is full or was busy a moment ago, otherwise when somebody wakes it. What was just found
empty is looked at before a turn is taken, after pauses that double: producers send no
second hint within 5 ms, and their transactions may take longer than that. So is, for a
moment, what was just full. A queue that accepts nothing is a failure of the loop: it is
tried again after a growing wait.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from async_jobs.config import TenantQuota, UseCaseConfig
from async_jobs.core.fairness import PRESSURE_AFTER_DROP_SECONDS, free_slots
from async_jobs.core.packing import Turnover
from async_jobs.core.slo import Slack
from async_jobs.core.window import Window
from async_jobs.errors import TransportError
from async_jobs.failpoints import reach
from async_jobs.models import Leased, OnLate, Ticket
from async_jobs.quota import EVERY_TENANT, UNLIMITED
from async_jobs.scheduler.depth import Depth
from async_jobs.scheduler.ladder import Footing, Ladder, LadderTurn
from async_jobs.scheduler.late import MOST_ENDED_PER_PASS, LateJobs, LateTurn
from async_jobs.scheduler.outstanding import RENEW_EVERY_SECONDS, Outstanding, RenewDesk
from async_jobs.scheduler.pressure import Pressure
from async_jobs.scheduler.selection import Limits, Monotonic, Selection, SelectionTurn
from async_jobs.store.jobs import Survey
from async_jobs.store.turn import InFlight
from async_jobs.telemetry import traces
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.events import JobsLeased, SendFailed
from async_jobs.transport.ports import Sender, SendReport

MOST_PER_PASS = 500
SHORTEST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 1.0
LEAST_WAIT_SECONDS = 0.001
PAUSE_SHARE = 0.05
STAYS_BUSY_SECONDS = 0.2
STAYS_FULL_SECONDS = 1.0
UNTIL_WOKEN_SECONDS = 3_600.0
GRANT_SECONDS = 1.0
STANDS_BACK_SECONDS = 0.5
"""While workers claim jobs themselves; so long a slot may stay free if they do not."""
GATHER_SECONDS = 0.008
"""What comes so soon after a message to SQS goes with the next: a request costs its client
milliseconds of CPU."""
FEW_BESIDE_CLAIMS = 8


class Turn(SelectionTurn, LadderTurn, LateTurn, Protocol):
    """What a dispatcher may do in its turn."""

    async def count_in_flight(self) -> InFlight: ...

    @property
    def asked(self) -> bool: ...

    @property
    def grant_capacity(self) -> int | None: ...

    async def grant(self, capacity: int, *, seconds: float) -> None: ...

    async def hint(self, queues: Sequence[str]) -> None: ...


class DispatchDesk(RenewDesk, Protocol):
    """The store's moves that a dispatcher makes."""

    def take_turn(self, use_case: str) -> AbstractAsyncContextManager[Turn | None]: ...

    async def release(self, tickets: Sequence[Ticket], *, enqueue_failed: bool) -> int: ...

    async def survey(self, use_cases: Sequence[str]) -> Survey: ...

    async def count_in_flight(self, use_case: str) -> InFlight: ...


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did: jobs sent, jobs not accepted and why, slots that stayed free.

    `wait_seconds` is how long until a job may go that a rate or a breaker held back, and 0 when
    there are more late jobs to end.
    """

    sent: int = 0
    failed: int = 0
    free: int = 0
    had_turn: bool = True
    reason: str = ""
    wait_seconds: float = UNTIL_WOKEN_SECONDS
    granted: bool = False


class Dispatcher:
    """Leases and sends the jobs of one use case."""

    def __init__(
        self,
        desk: DispatchDesk,
        sender: Sender,
        use_case: UseCaseConfig,
        *,
        quotas: Mapping[str, TenantQuota],
        dispatch_lease_seconds: float,
        bus: Bus,
        window: Window | None = None,
        monotonic: Monotonic = time.monotonic,
    ) -> None:
        self.use_case = use_case
        self.stands_back = False
        """Whether hints change nothing: workers claim what comes in, or it looks soon anyway."""
        self._desk = desk
        self._sender = sender
        self._quotas = quotas
        self._paused = False
        self._outstanding = Outstanding(desk, dispatch_lease_seconds=dispatch_lease_seconds)
        self._selection = Selection(
            lambda tenant_id: self._quota(tenant_id).weight,
            lease_seconds=(
                self._outstanding.lease_seconds if use_case.uses_sqs else dispatch_lease_seconds
            ),
            pressure_lasts_seconds=(
                0.0 if OnLate(use_case.on_late) is OnLate.RUN else PRESSURE_AFTER_DROP_SECONDS
            ),
            monotonic=monotonic,
        )
        self._depth = Depth(
            sender, most=use_case.max_concurrent, trust_seconds=dispatch_lease_seconds
        )
        self._window = window or Window(use_case.max_concurrent)
        self._pressure = Pressure(use_case.name, bus)
        self._ladder = Ladder(use_case, quotas, bus=bus, monotonic=monotonic)
        self._bounds_tenants = _bounds_tenants(quotas)
        self._late_jobs = LateJobs(use_case.name, OnLate(use_case.on_late), bus=bus)
        self._monotonic = monotonic
        self._bus = bus
        self._turnover = Turnover()
        self._sent_at = 0.0
        self._found_empty = False
        self._found_full = False

    def steer(
        self, use_case: UseCaseConfig, quotas: Mapping[str, TenantQuota], *, paused: bool
    ) -> None:
        """Go by another capacity and other quotas from the next pass on, or lease nothing."""
        self.use_case = use_case
        self._quotas = quotas
        self._paused = paused
        self._window.capacity = self._depth.most = use_case.max_concurrent
        self._ladder = Ladder(use_case, quotas, bus=self._bus, monotonic=self._monotonic)
        self._bounds_tenants = _bounds_tenants(quotas)

    async def tick(self) -> float:
        """Run one pass; seconds until the next one unless somebody wakes the loop.

        Raises TransportError when the queue accepted nothing, so that the loop backs off.
        """
        done = await self._look_or_dispatch()
        await self._outstanding.renew(at=self._monotonic())
        gathers = self.use_case.uses_sqs and done.sent > 0 and self._selection.took_all
        self.stands_back = done.granted or gathers
        if done.failed and not done.sent:
            raise TransportError(self.use_case.queue, done.reason)
        now = self._monotonic()
        if done.sent:
            self._sent_at = now
        if self.stands_back:
            return STANDS_BACK_SECONDS if done.granted else GATHER_SECONDS
        if done.sent and done.free and not self._selection.took_all:
            return 0.0
        quiet_seconds = now - self._sent_at
        has_room = done.had_turn and done.free > 0
        if has_room and quiet_seconds > STAYS_BUSY_SECONDS:
            self._found_empty = False
            longest = RENEW_EVERY_SECONDS if self._outstanding else UNTIL_WOKEN_SECONDS
            return max(LEAST_WAIT_SECONDS, min(longest, done.wait_seconds))
        # A full use case is looked at again after a twentieth of the time it has been full.
        share = 1.0 if has_room else PAUSE_SHARE
        pause = max(SHORTEST_PAUSE_SECONDS, share * quiet_seconds)
        return max(LEAST_WAIT_SECONDS, min(LONGEST_PAUSE_SECONDS, pause, done.wait_seconds))

    async def _look_or_dispatch(self) -> Pass:
        """A pass, or one statement where the last pass left nothing to lease."""
        if self._found_empty:
            survey = await self._desk.survey([self.use_case.name])
            if not survey.use_cases_with_work:
                return Pass(free=1)
        if self._found_full and await self._is_still_full():
            return Pass()
        done = await self.dispatch()
        found_none = self._selection.took_all and done.had_turn and not done.sent
        self._found_empty = found_none and not done.granted
        self._found_full = done.had_turn and not done.free and not done.granted
        return done

    async def _is_still_full(self) -> bool:
        """As far as one statement tells; what goes on in a turn of a full use case can wait."""
        at = self._monotonic()
        if at - self._sent_at > STAYS_FULL_SECONDS:
            return False
        now = await self._desk.count_in_flight(self.use_case.name)
        is_full = self._window.is_full(unstarted=now.unstarted, old=now.old, at=at)
        return is_full or not free_slots(self.use_case.max_concurrent, now.held)

    async def dispatch(self) -> Pass:
        """One pass: lease what fits and send it."""
        if self._paused:
            return Pass(free=1)
        if self._depth.is_full:
            await self._is_full()
        began_at, began_ns = self._monotonic(), time.time_ns()
        async with self._desk.take_turn(self.use_case.name) as turn:
            if turn is None:
                return Pass(had_turn=False)
            ended = await self._late_jobs.end(turn)
            in_flight = await turn.count_in_flight()
            if not in_flight.old:
                self._outstanding.none_is_old(at=began_at)
            room = self._room(in_flight)
            footing = await self._ladder.begin(turn, min(room, MOST_PER_PASS))
            room = min(room, free_slots(footing.capacity, in_flight.held))
            slots = min(room, MOST_PER_PASS)
            if in_flight.claimed and turn.asked and turn.grant_capacity:
                # Enough to see whether jobs wait: the others are claimed, one write instead of two.
                slots = min(slots, FEW_BESIDE_CLAIMS)
            limits = self._limits(footing)
            leased = await self._selection.lease(turn, limits, in_flight.held, slots)
            await self._ladder.leased(turn, footing, leased)
            granted = await self._grant(turn, limits)
            self._window.sent(unstarted=in_flight.unstarted + len(leased))
            await self._ring(turn, leased, granted=granted)
        self._late_jobs.tell(ended)
        self._pressure.seen(self._selection.pressure, at=self._monotonic())
        self._ladder.tell(footing)
        more_late = len(ended) == MOST_ENDED_PER_PASS
        wait_seconds = 0.0 if more_late else min(UNTIL_WOKEN_SECONDS, footing.wait_seconds)
        if not leased:
            return Pass(free=room, wait_seconds=wait_seconds, granted=granted)
        if await self._is_full():
            await self._desk.release(_tickets(leased), enqueue_failed=False)
            return Pass()
        traces.leased(leased, self.use_case.name, since_ns=began_ns)
        await reach("scheduler.after_lease")
        report = await self._send(leased)
        failed = len(report.failed)
        self._told(leased, failed, in_flight.total, footing.capacity)
        return Pass(
            sent=len(leased) - failed,
            failed=failed,
            free=room - len(leased),
            reason=report.reason,
            wait_seconds=wait_seconds,
            granted=granted,
        )

    async def _grant(self, turn: Turn, limits: Limits) -> bool:
        """Leave for workers to claim jobs (`store/claims.py`), while nothing but deadlines counts.

        True if it was given; what was given and does not hold any more is taken back.
        """
        plain = limits.is_free and not self._selection.pressure
        if turn.asked and plain and not self.use_case.uses_sqs:
            await turn.grant(limits.capacity, seconds=GRANT_SECONDS)
            return True
        if turn.grant_capacity is not None:
            await turn.grant(0, seconds=0.0)
        return False

    async def _ring(self, turn: Turn, leased: Sequence[Leased], *, granted: bool) -> None:
        """Wake workers that take jobs from the table: for what is leased, and for new leave."""
        is_new = granted and not turn.grant_capacity
        if (leased or is_new) and not self.use_case.uses_sqs:
            await turn.hint([self.use_case.queue])

    def _room(self, in_flight: InFlight) -> int:
        """What the capacity leaves, as far as workers keep up with what was sent."""
        if self._depth.is_full:
            return 0
        room = self._window.room(
            unstarted=in_flight.unstarted, old=in_flight.old, at=self._monotonic()
        )
        return min(free_slots(self.use_case.max_concurrent, in_flight.held), room)

    async def _is_full(self) -> bool:
        """Whether the queue holds a capacity of messages, and nobody starts any."""
        return self.use_case.uses_sqs and await self._depth.look(
            started_at=self._outstanding.started_at, at=self._monotonic()
        )

    def _limits(self, footing: Footing) -> Limits:
        return Limits(
            capacity=footing.capacity,
            most_held=lambda tenant_id: self._quota(tenant_id).max_concurrent_jobs,
            tokens=lambda tenant_id: self._ladder.tokens(footing, tenant_id),
            shut=footing.shut,
            probes=footing.probes,
            bounds_tenants=self._bounds_tenants,
        )

    def _quota(self, tenant_id: str) -> TenantQuota:
        return self._quotas.get(tenant_id) or self._quotas.get(EVERY_TENANT) or UNLIMITED

    async def _send(self, leased: Sequence[Leased]) -> SendReport:
        self._turnover.add(len(leased), at=self._monotonic())
        if self.use_case.uses_sqs:
            self._outstanding.add(leased, at=self._monotonic())
        self.stands_back = self.use_case.uses_sqs
        began_ns = time.time_ns()
        report = await self._sender.send(leased, pack=self._turnover.pack())
        if self.use_case.uses_sqs:
            traces.sent(leased, self.use_case.name, report.failed, report.reason, since_ns=began_ns)
        await reach("scheduler.after_send")
        if report.failed:
            self._outstanding.forget(report.failed)
            await self._desk.release(_tickets(report.failed), enqueue_failed=True)
            self._bus.emit(
                SendFailed(
                    queue=self.use_case.queue, messages=len(report.failed), reason=report.reason
                )
            )
        return report

    def _told(self, leased: Sequence[Leased], failed: int, held: int, capacity: int) -> None:
        self._bus.emit(
            JobsLeased(
                use_case=self.use_case.name,
                sent=len(leased) - failed,
                failed=failed,
                in_flight=held + len(leased) - failed,
                capacity=capacity,
                slacks=[
                    Slack(job.tenant_id, job.slack_seconds, job.tolerance_seconds) for job in leased
                ],
            )
        )


def _tickets(leased: Sequence[Leased]) -> list[Ticket]:
    return [Ticket(job.job_id, job.lease_seq) for job in leased]


def _bounds_tenants(quotas: Mapping[str, TenantQuota]) -> bool:
    """Whether any tenant may be refused a slot that is free."""
    return any(
        quota.rate_per_second is not None or quota.max_concurrent_jobs is not None
        for quota in quotas.values()
    )
