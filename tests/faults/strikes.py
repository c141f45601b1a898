"""The faults of a random run. Each is over, or mended by `Ground.heal`, when it returns."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from flows.stage import Process

from .ground import LEASE_SECONDS, Ground, Run

END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND starts_with(application_name, 'async-jobs-')
"""

Act = Callable[[Run, Random], Awaitable[None]]
Server = Literal["postgres", "sqs"]


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault, and the server that is away while it lasts."""

    name: str
    act: Act
    server: Server | None = None

    @property
    def holds_up_rescue(self) -> bool:
        """Whether schedulers cannot take leases back for a while."""
        return self.name.startswith("database") or self.name == "scheduler stopped"


def _one(run: Run, random: Random, role: str) -> Process:
    return random.choice([p for p in run.processes if p.is_running and p.name.startswith(role)])


def _kill(role: str) -> Act:
    async def act(run: Run, random: Random) -> None:
        run.kill(_one(run, random, role))

    return act


def _stop(role: str) -> Act:
    async def act(run: Run, random: Random) -> None:
        victim = _one(run, random, role)
        victim.send(signal.SIGSTOP)
        await asyncio.sleep(random.uniform(0.2, 1.7 * LEASE_SECONDS))
        victim.send(signal.SIGCONT)

    return act


def _term(role: str) -> Act:
    async def act(run: Run, random: Random) -> None:
        victim = _one(run, random, role)
        victim.send(signal.SIGTERM)
        await asyncio.to_thread(victim.exit_code)

    return act


async def _lasts(random: Random) -> None:
    await asyncio.sleep(random.uniform(0.5, 3.0))


def _queue(kind: str, probability: float = 1.0) -> Act:
    async def act(run: Run, random: Random) -> None:
        run.ground.sqs.faults.add(kind, probability=probability, seconds=2.0)
        await _lasts(random)

    return act


async def _wipe(run: Run, random: Random) -> None:
    run.ground.sqs.wipe()


async def _queue_away(run: Run, random: Random) -> None:
    run.ground.sqs_proxy.refuse()
    run.ground.sqs_proxy.reset()
    await _lasts(random)


async def _sessions_end(run: Run, random: Random) -> None:
    run.query(END_SESSIONS)


async def _crash(run: Run, random: Random) -> None:
    await asyncio.to_thread(crash_all, run.ground, random.uniform(0.2, 2.0))


async def _database_away(run: Run, random: Random) -> None:
    run.ground.postgres_proxy.refuse()
    run.ground.postgres_proxy.reset()
    await _lasts(random)


async def _database_silent(run: Run, random: Random) -> None:
    run.ground.postgres_proxy.black_hole(random.choice(("both", "to_client", "to_server")))
    await _lasts(random)


async def _database_slow(run: Run, random: Random) -> None:
    run.ground.postgres_proxy.delay(0.05)
    await _lasts(random)


async def _replies_cut(run: Run, random: Random) -> None:
    run.ground.postgres_proxy.cut_replies(b"COMMIT", b"UPDATE", b"INSERT", count=4)
    await _lasts(random)


def crash_all(ground: Ground, away_seconds: float) -> None:
    """kill -9 of the server; it is away for a while, then it recovers."""
    os.kill(ground.postgres.pid, signal.SIGKILL)
    time.sleep(away_seconds)
    ground.postgres.start()


STRIKES = {
    strike.name: strike
    for strike in (
        Strike("worker killed", _kill("worker")),
        Strike("worker stopped", _stop("worker")),
        Strike("worker told to end", _term("worker")),
        Strike("scheduler killed", _kill("scheduler")),
        Strike("scheduler stopped", _stop("scheduler")),
        Strike("scheduler told to end", _term("scheduler")),
        Strike("database crashes", _crash, "postgres"),
        Strike("database refuses", _database_away, "postgres"),
        Strike("database is silent", _database_silent, "postgres"),
        Strike("database is slow", _database_slow),
        Strike("database ends sessions", _sessions_end),
        Strike("database loses replies", _replies_cut),
        Strike("queue refuses", _queue_away, "sqs"),
        Strike("queue forgets", _wipe, "sqs"),
        Strike("queue hangs", _queue("hang")),
        Strike("queue is slow", _queue("delay")),
        Strike("queue throttles", _queue("throttle", 0.5)),
        Strike("queue fails", _queue("server_error", 0.5)),
        Strike("queue fails in part", _queue("partial_failure", 0.5)),
        Strike("queue loses", _queue("lose", 0.3)),
        Strike("queue doubles", _queue("duplicate", 0.3)),
        Strike("queue reorders", _queue("reorder")),
        Strike("queue keeps what was deleted", _queue("ignore_delete", 0.5)),
        Strike("queue loses answers", _queue("after_send_reset", 0.5)),
    )
}
