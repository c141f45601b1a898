"""What a run was made on: machine, versions, settings. Without names of hosts or people."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.contestants import Contestant
from bench.measures import Sizes
from bench.servers import Servers

SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
OWN_PARTS = ("psycopg", "psycopg-pool", "boto3", "pydantic")


def facts(servers: Servers, contestants: Iterable[Contestant], sizes: Sizes) -> dict[str, str]:
    """Everything that a reader needs in order to compare two runs."""
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores ({_processor()}), {_memory_gib():.0f} GiB, "
        f"{platform.system()} {platform.release()}",
        "load at the start": f"{os.getloadavg()[0]:.1f} (mean of a minute, all processes)",
        "Python": platform.python_version(),
        "PostgreSQL": f"{_setting(servers, 'server_version')}, "
        + ", ".join(f"{name} = {_setting(servers, name)}" for name in SETTINGS),
        "SQS": "the local server of Async Jobs, in memory",
        "Async Jobs on": ", ".join(f"{name} {version(name)}" for name in OWN_PARTS),
        "contestants": ", ".join(_described(one) for one in contestants),
        "sizes": f"up to {sizes.jobs:,} jobs, latency {sizes.latency_seconds:g} s per rate, "
        f"idle {sizes.idle_seconds:g} s",
    }


def _described(one: Contestant) -> str:
    if not one.requires:
        return one.name
    return f"{one.name} ({one.distribution} {one.version}{_listed(one.environment)})"


def _listed(environment: Mapping[str, str]) -> str:
    return "".join(f", {name}={value}" for name, value in environment.items())


def _setting(servers: Servers, name: str) -> str:
    found = servers.control.execute("SELECT current_setting(%s)", (name,)).fetchone()
    return str(found[0]) if found else "unknown"


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
