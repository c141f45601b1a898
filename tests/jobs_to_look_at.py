"""What the tests of the dashboard store for its pages to show, past the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

JOBS = """
    INSERT INTO jobs (
        id, tenant_id, use_case, type, queue, payload, result, run_at, delay_tolerance, deadline_at,
        due, status, attempts, finished_at, last_error, worker, created_at
    )
    SELECT gen_random_uuid(), tenant, 'notifications', %(type)s, 'notifications', %(payload)s,
        %(payload)s, at, interval '1 min', at + interval '1 min', status = 'pending', status,
        (status = 'dead')::int, CASE WHEN status = 'dead' THEN now() END,
        CASE WHEN status = 'dead' THEN %(error)s::jsonb END, %(worker)s, least(at, now())
    FROM unnest(%(tenants)s::text[], %(statuses)s::text[]) WITH ORDINALITY
            AS told (tenant, status, number),
        LATERAL (SELECT now() - make_interval(secs => 11 * number - 30) AS at) AS moment
    RETURNING id
"""
AROUND = """
    INSERT INTO jobs_processes (name, role, version, started_at, seen_at, serves)
        VALUES (%(t)s, 'worker', %(t)s, now(), now(), jsonb_build_object('types', ARRAY[%(t)s]));
    INSERT INTO jobs_overrides VALUES ('notifications', '', 'paused', 'true', now(), %(t)s)
        ON CONFLICT DO NOTHING;
    INSERT INTO jobs_overrides VALUES ('', %(t)s, 'weight', '2', now(), %(t)s);
    INSERT INTO jobs_audit (acted_at, actor, move, use_case, tenant_id, before, after)
        VALUES (now(), %(t)s, %(t)s, %(t)s, %(t)s, jsonb_build_object(%(t)s, %(t)s),
            jsonb_build_object('a', %(t)s))
"""


def fill(
    conn: psycopg.Connection[Any],
    *,
    kind: str,
    tenants: Sequence[str],
    statuses: Sequence[str],
    payload: Mapping[str, str],
    error: Mapping[str, str],
    worker: str,
) -> list[str]:
    """Store jobs; gives their ids."""
    values = {"payload": Jsonb(payload), "error": Jsonb(error), "worker": worker, "type": kind}
    values |= {"tenants": list(tenants), "statuses": list(statuses)}
    return [str(row[0]) for row in conn.execute(JOBS, values).fetchall()]


def store_everywhere(database: str, texts: Sequence[str]) -> list[str]:
    """Each text in every field of every table; gives the ids of jobs that hold all of them."""
    made = []
    together = dict(zip(texts, texts, strict=True))
    with psycopg.connect(database, autocommit=True) as conn:
        for text in texts:
            psycopg.ClientCursor(conn).execute(AROUND, {"t": text})
            made += fill(
                conn,
                kind=text,
                tenants=[text] * 2,
                statuses=["pending", "dead"],
                payload=together,
                error={"type": text, "message": text, "traceback": "\n".join(texts)},
                worker=text,
            )
    return made
