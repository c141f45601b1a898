-- Who is alive, what operators have changed, who did what. Conventions as in jobs.sql.

-- name: report_alive
-- A process says that it lives and what it serves; the answer says whether it is to stop, and what
-- operators have set. One statement, so that being seen and being steered cost one round trip.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
told AS (
    INSERT INTO jobs_processes AS known (name, role, version, started_at, seen_at, serves)
    SELECT %(name)s::text, %(role)s::text, %(version)s::text,
        clock.now - make_interval(secs => %(up_seconds)s), clock.now, %(serves)s::text::jsonb
    FROM clock
    ON CONFLICT (name) DO UPDATE SET seen_at = EXCLUDED.seen_at, serves = EXCLUDED.serves
    RETURNING stop_asked_at IS NOT NULL AS stop
),
gone AS (
    DELETE FROM jobs_processes USING clock
    WHERE seen_at < clock.now - make_interval(secs => %(forget_seconds)s)
)
SELECT told.stop, override.use_case, override.tenant_id, override.setting, override.value,
    override.changed_by, override.changed_at
FROM told LEFT JOIN (
    SELECT * FROM jobs_overrides ORDER BY use_case, tenant_id, setting LIMIT %(most)s
) AS override ON true;

-- name: report_gone
DELETE FROM jobs_processes WHERE name = %(name)s;

-- name: find_processes
-- Everybody that was seen lately, schedulers first.
SELECT
    name, role, version, serves,
    extract(epoch FROM clock.now - started_at)::float8 AS up_seconds,
    extract(epoch FROM clock.now - seen_at)::float8 AS seen_seconds,
    stop_asked_at IS NOT NULL AS stop_asked
FROM jobs_processes,
    (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
ORDER BY role, started_at, name
LIMIT %(most)s;

-- name: ask_to_stop
-- The process learns of it when it next says that it lives.
WITH asked AS (
    UPDATE jobs_processes
    SET stop_asked_at = coalesce(%(now)s::timestamptz, clock_timestamp())
    WHERE name = %(name)s AND stop_asked_at IS NULL
    RETURNING name, role
),
audited AS (
    INSERT INTO jobs_audit (acted_at, actor, move, use_case, tenant_id, after)
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()), %(actor)s::text, 'stop', '', '',
        jsonb_build_object('process', name)
    FROM asked
)
SELECT name FROM asked;

-- name: find_overrides
SELECT use_case, tenant_id, setting, value, changed_by, changed_at
FROM jobs_overrides
ORDER BY use_case, tenant_id, setting
LIMIT %(most)s;

-- name: set_overrides
-- Sets some settings and takes others (value NULL) back, and writes down who did and what was there.
-- One statement: there is no change without its audit line.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
told AS MATERIALIZED (
    SELECT setting, value::jsonb AS value
    FROM unnest(%(settings)s::text[], %(values)s::text[]) AS told (setting, value)
),
before AS MATERIALIZED (
    SELECT setting, value FROM jobs_overrides
    WHERE use_case = %(use_case)s AND tenant_id = %(tenant_id)s
        AND setting IN (SELECT setting FROM told)
),
gone AS (
    DELETE FROM jobs_overrides AS known USING told
    WHERE known.use_case = %(use_case)s AND known.tenant_id = %(tenant_id)s
        AND known.setting = told.setting AND told.value IS NULL
),
put AS (
    INSERT INTO jobs_overrides AS known (
        use_case, tenant_id, setting, value, changed_at, changed_by
    )
    SELECT %(use_case)s, %(tenant_id)s, setting, value, clock.now, %(actor)s
    FROM told, clock WHERE value IS NOT NULL
    ON CONFLICT (use_case, tenant_id, setting) DO UPDATE
    SET value = EXCLUDED.value, changed_at = EXCLUDED.changed_at, changed_by = EXCLUDED.changed_by
)
INSERT INTO jobs_audit (acted_at, actor, move, use_case, tenant_id, before, after)
SELECT clock.now, %(actor)s, %(move)s, %(use_case)s, %(tenant_id)s,
    (SELECT jsonb_object_agg(setting, value) FROM before),
    (SELECT nullif(jsonb_strip_nulls(jsonb_object_agg(setting, value)), '{}') FROM told)
FROM clock
RETURNING before IS DISTINCT FROM after;

-- name: write_audit
-- A line for what takes more than one statement.
INSERT INTO jobs_audit (acted_at, actor, move, use_case, tenant_id, after)
VALUES (
    coalesce(%(now)s::timestamptz, clock_timestamp()), %(actor)s, %(move)s, %(use_case)s, '',
    %(after)s::text::jsonb
)
RETURNING id;

-- name: find_audit
-- Newest first; `before_id` continues a page.
SELECT id, acted_at, actor, move, use_case, tenant_id, job_id, before, after
FROM jobs_audit
WHERE id < coalesce(%(before_id)s::bigint, 9223372036854775807)
    AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s::text)
ORDER BY id DESC
LIMIT %(most)s;
