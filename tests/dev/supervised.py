"""Run a Supervisor on stand-ins: `python supervised.py STAGES`, JSON as `Stand` makes it."""

from __future__ import annotations

import asyncio
import json
import sys

from async_jobs.dev import child, supervisor
from async_jobs.dev.child import Part
from async_jobs.dev.merged_log import MergedLog
from async_jobs.dev.supervisor import Supervisor

child.FIRST_PAUSE_SECONDS = 0.01
supervisor.ORPHANS_GRACE_SECONDS = 0.3


def main() -> int:
    """Start each stage, say `up`, wait for the end."""
    stages = [[Part(**part) for part in stage] for stage in json.loads(sys.argv[1])]
    log = MergedLog([part.name for stage in stages for part in stage])
    running = Supervisor(log)

    async def launch() -> None:
        for stage in stages:
            running.start(*stage)
        log.say("up")

    return asyncio.run(running.run(launch))


if __name__ == "__main__":
    sys.exit(main())
