"""Every page of the dashboard in a real browser: no error in its console, no foreign script run.

It needs Chromium, as Debian packages it. `SCREENSHOTS=folder` keeps a picture of each page.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from command_line import read_until, start

CHROMIUM = shutil.which("chromium") or ""
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --hide-scrollbars"
)
TAKEN = "document.title='taken over'"
HARMFUL = f'"\'><img src=x onerror="{TAKEN}"><script>{TAKEN}</script>'
PAGES = ("", "jobs", "use-cases", "processes", "dead", "audit")
JOBS = """
    INSERT INTO jobs (
        id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance, deadline_at, due,
        status, attempts, finished_at, last_error
    )
    SELECT gen_random_uuid(), 'acme', 'notifications', %(t)s, 'notifications',
        jsonb_build_object(%(t)s::text, %(t)s::text), at, interval '10 s', at + interval '10 s',
        not dead, CASE WHEN dead THEN 'dead' ELSE 'pending' END, dead::int,
        CASE WHEN dead THEN now() END,
        jsonb_build_object('type', %(t)s::text, 'message', %(t)s::text, 'traceback', %(t)s::text)
    FROM (SELECT now() - number * interval '7 s' AS at, number > 8 AS dead
        FROM generate_series(1, 16) AS number) AS made
    RETURNING id
"""
AROUND = """
    INSERT INTO jobs_processes (name, role, version, started_at, seen_at, serves)
        VALUES (%(t)s, 'worker', %(t)s, now(), now(), jsonb_build_object('types', ARRAY[%(t)s]));
    INSERT INTO jobs_overrides VALUES ('notifications', '', 'paused', 'true', now(), %(t)s);
    INSERT INTO jobs_audit (acted_at, actor, move, use_case, tenant_id, after)
        VALUES (now(), %(t)s, %(t)s, %(t)s, %(t)s, jsonb_build_object('a', %(t)s))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine: apt install chromium"),
]


@pytest.fixture
def dashboard(database: str) -> Iterator[tuple[str, list[Any]]]:
    """Where it is served, and the ids of the jobs it has to show."""
    with psycopg.connect(database, autocommit=True) as conn:
        ids = [row[0] for row in conn.execute(JOBS, {"t": HARMFUL}).fetchall()]
        with psycopg.ClientCursor(conn) as cursor:
            cursor.execute(AROUND, {"t": HARMFUL})
    env = {"ASYNC_JOBS_DB_DSN": database}
    process = start("dashboard", "--no-auth", "--port", "0", env=env)
    try:
        said = read_until(process, "127.0.0.1:")
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found is not None
        yield found.group(0), ids
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_every_page_is_shown_without_an_error_and_runs_nothing_foreign(
    dashboard: tuple[str, list[Any]], tmp_path: Path
) -> None:
    place, ids = dashboard
    kept = os.environ.get("SCREENSHOTS")
    for page in (*PAGES, f"jobs/{ids[0]}", f"jobs/{ids[-1]}", "jobs?tenant_id=%3Cscript%3E"):
        shot = (
            Path(kept or tmp_path) / f"{page.partition('?')[0].partition('/')[0] or 'overview'}.png"
        )
        done = subprocess.run(
            [
                *(CHROMIUM, *QUIET.split(), f"--user-data-dir={tmp_path / 'profile'}"),
                *("--enable-logging=stderr", "--window-size=1280,900"),
                *(f"--screenshot={shot}", "--dump-dom", f"{place}/dashboard/{page}"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )

        assert "Async Jobs</title>" in done.stdout, page
        assert "taken over" not in re.findall(r"<title>(.*?)</title>", done.stdout), page
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        wrong = [line for line in console if "status of 422" not in line]
        assert wrong == [], page
