"""Who is alive, what operators have set, who did what: three small tables.

jobs_processes    a row for each scheduler and worker, written by itself every few seconds
jobs_overrides    a row for each setting that operators have changed
jobs_audit        a line for each of their actions, in the statement that takes the action
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, scalar_row, tuple_row

from async_jobs.core.checkup import Examined
from async_jobs.core.clock import Clock
from async_jobs.core.explain import Snapshot
from async_jobs.core.overrides import MOST_OVERRIDES, AuditLine, Override, ProcessSeen
from async_jobs.store.doctor import examine
from async_jobs.store.door import Door
from async_jobs.store.explain import read_snapshot
from async_jobs.store.queries import query

_REPORT_ALIVE = query("report_alive", "steering")
_REPORT_GONE = query("report_gone", "steering")
_FIND_PROCESSES = query("find_processes", "steering")
_ASK_TO_STOP = query("ask_to_stop", "steering")
_FIND_OVERRIDES = query("find_overrides", "steering")
_SET_OVERRIDES = query("set_overrides", "steering")
_WRITE_AUDIT = query("write_audit", "steering")
_FIND_AUDIT = query("find_audit", "steering")

FORGET_SECONDS = 86_400.0
MOST_PROCESSES = 1_000
_FIELDS = ("use_case", "tenant_id", "setting", "value", "changed_by", "changed_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a process is told when it says that it lives."""

    stop: bool
    overrides: Sequence[Override]


class SteeringTables:
    """The three tables, on the store's door."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock

    async def snapshot(self, job_id: UUID, *, tenant_id: str | None = None) -> Snapshot | None:
        """One job and what stands between it and a worker; see `store/explain.py`."""
        return await read_snapshot(self._door, self._clock, job_id, tenant_id=tenant_id)

    async def examine(self) -> Examined:
        """The server's side of a check-up; see `store/doctor.py`."""
        return await examine(self._door)

    async def report_alive(
        self, name: str, *, role: str, version: str, up_seconds: float, serves: Mapping[str, object]
    ) -> Orders:
        """Say that this process lives; what it is told in turn."""
        told = await self._rows(
            _REPORT_ALIVE,
            name=name,
            role=role,
            version=version,
            up_seconds=up_seconds,
            serves=json.dumps(serves),
            forget_seconds=FORGET_SECONDS,
            most=MOST_OVERRIDES,
        )
        overrides = [Override(**dict(zip(_FIELDS, row[1:], strict=True))) for row in told if row[3]]
        return Orders(stop=told[0][0], overrides=overrides)

    async def report_gone(self, name: str) -> None:
        """This process ends: nobody is to miss it."""
        await self._rows(_REPORT_GONE, name=name)

    async def find_processes(self) -> list[ProcessSeen]:
        """Who was seen within a day, at most 1,000 of them; schedulers first."""
        return await self._door.rows(
            _FIND_PROCESSES,
            {"most": MOST_PROCESSES, "now": self._clock.now()},
            class_row(ProcessSeen),
        )

    async def ask_to_stop(self, name: str, *, actor: str) -> bool:
        """Ask a process to stop politely; False if there is none, or it was asked before."""
        return bool(await self._rows(_ASK_TO_STOP, name=name, actor=actor))

    async def find_overrides(self) -> list[Override]:
        """Everything that operators have set."""
        return await self._door.rows(_FIND_OVERRIDES, {"most": MOST_OVERRIDES}, class_row(Override))

    async def set_overrides(
        self,
        changes: Mapping[str, object],
        *,
        actor: str,
        move: str,
        use_case: str = "",
        tenant_id: str = "",
    ) -> bool:
        """Set what *changes* names, take back what is None there; whether that changed anything."""
        values = [None if value is None else json.dumps(value) for value in changes.values()]
        changed = await self._door.rows(
            _SET_OVERRIDES,
            {
                "settings": list(changes),
                "values": values,
                "use_case": use_case,
                "tenant_id": tenant_id,
                "actor": actor,
                "move": move,
                "now": self._clock.now(),
            },
            scalar_row,
        )
        return bool(changed[0])

    async def write_audit(
        self, *, actor: str, move: str, use_case: str, after: Mapping[str, object]
    ) -> None:
        """Write down what *actor* does and takes more than one statement for."""
        await self._rows(
            _WRITE_AUDIT, actor=actor, move=move, use_case=use_case, after=json.dumps(after)
        )

    async def find_audit(
        self, *, before_id: int | None = None, tenant_id: str | None = None, most: int = 100
    ) -> list[AuditLine]:
        """Who did what, newest first; with *tenant_id* only what is about that tenant."""
        return await self._door.rows(
            _FIND_AUDIT,
            {"before_id": before_id, "tenant_id": tenant_id, "most": most},
            class_row(AuditLine),
            prepare=False,
        )

    async def _rows(self, sql: bytes, **values: object) -> list[tuple[Any, ...]]:
        return await self._door.rows(sql, {**values, "now": self._clock.now()}, tuple_row)
