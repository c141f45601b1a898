"""Ids of jobs: in order of time, and free to make anywhere."""

from __future__ import annotations

import os
import time
from uuid import UUID

_FIXED = 0xF << 76 | 0x3 << 62
_VERSION_AND_VARIANT = 0x7 << 76 | 0x2 << 62


def new_job_id() -> UUID:
    """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits."""
    return UUID(int=_valued(time.time_ns() // 1_000_000, os.urandom(10)))


def new_job_ids(count: int) -> list[UUID]:
    """So many of them, in their order: jobs that come together are leased in that order."""
    milliseconds, random = time.time_ns() // 1_000_000, os.urandom(10 * count)
    chunks = [random[at : at + 10] for at in range(0, 10 * count, 10)]
    return [UUID(int=value) for value in sorted([_valued(milliseconds, one) for one in chunks])]


def _valued(milliseconds: int, random: bytes) -> int:
    value = milliseconds << 80 | int.from_bytes(random, "big")
    return value & ~_FIXED | _VERSION_AND_VARIANT
