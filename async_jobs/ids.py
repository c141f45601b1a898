"""Ids of jobs: in order of time, and free to make anywhere."""

from __future__ import annotations

import os
import time
from uuid import UUID

_VERSION_AND_VARIANT = 0x7 << 76 | 0x2 << 62
_FREE = ~(0xF << 76 | 0x3 << 62)


def new_job_id() -> UUID:
    """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits."""
    return new_job_ids(1)[0]


def new_job_ids(count: int) -> list[UUID]:
    """So many of them, in their order: jobs that come together are leased in that order."""
    random, number = os.urandom(10 * count), int.from_bytes
    fixed = (time.time_ns() // 1_000_000) << 80 | _VERSION_AND_VARIANT
    values = [
        fixed | number(random[at : at + 10], "big") & _FREE for at in range(0, 10 * count, 10)
    ]
    values.sort()
    return [UUID(int=value) for value in values]
