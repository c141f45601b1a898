-- The control tables of overload: rates, failing flows, open breakers, lowered capacities.
-- `now` NULL means the database's clock. What a scheduler reads and writes here happens in its
-- turn, so one replica at a time does; workers only add to counts and set marks.

-- name: report_endings
-- A worker's counts, at most once a second and only when something failed; then which flows are
-- watched, so that it tells their successes as well. With nothing to tell it only asks.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
told AS MATERIALIZED (
    SELECT *
    FROM unnest(
        %(told_use_cases)s::text[], %(tenant_ids)s::text[], %(types)s::text[],
        %(ended)s::int[], %(failed)s::int[], %(probes_succeeded)s::boolean[]
    ) AS told (use_case, tenant_id, type, ended, failed, probe_succeeded)
    ORDER BY use_case, tenant_id, type
),
counted AS (
    INSERT INTO jobs_endings AS known (
        use_case, tenant_id, type, step, first_at, ended, failed
    )
    SELECT
        told.use_case, told.tenant_id, told.type,
        floor(extract(epoch FROM clock.now) / %(step_seconds)s::float8)::bigint,
        clock.now, told.ended, told.failed
    FROM told, clock
    WHERE told.ended > 0
    ON CONFLICT (use_case, tenant_id, type, step) DO UPDATE
        SET ended = known.ended + EXCLUDED.ended, failed = known.failed + EXCLUDED.failed
),
probed AS (
    UPDATE jobs_breakers AS breaker
    SET probe_succeeded = true
    FROM told
    WHERE told.probe_succeeded
        AND (breaker.use_case, breaker.tenant_id, breaker.type)
            = (told.use_case, told.tenant_id, told.type)
),
pressed AS (
    INSERT INTO jobs_capacities AS known (use_case, told_at, changed_at)
    SELECT pressed.use_case, clock.now, clock.now
    FROM clock, unnest(%(pressed_use_cases)s::text[]) AS pressed (use_case)
    ORDER BY pressed.use_case
    ON CONFLICT (use_case) DO UPDATE SET told_at = EXCLUDED.told_at
)
SELECT use_case, tenant_id, type
FROM jobs_endings, clock
WHERE use_case = ANY (%(use_cases)s::text[])
    AND step > extract(epoch FROM clock.now - make_interval(secs => %(window_seconds)s))
        / %(step_seconds)s::float8 - 1
GROUP BY use_case, tenant_id, type
HAVING sum(failed) > 0
LIMIT 1000;

-- name: find_breakers
-- The open breakers of a use case; as ages, because the clock is the database's.
SELECT
    tenant_id, type,
    extract(epoch FROM clock.now - opened_at)::float8 AS open_seconds,
    extract(epoch FROM clock.now - probed_at)::float8 AS probed_seconds,
    probe_succeeded
FROM jobs_breakers,
    (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
WHERE use_case = %(use_case)s;

-- name: find_failing
-- The flows of a use case with enough endings in the window to be judged.
SELECT
    tenant_id, type,
    sum(ended)::int AS ended,
    sum(failed)::int AS failed,
    extract(epoch FROM clock.now - min(first_at))::float8 AS watched_seconds
FROM jobs_endings,
    (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
WHERE use_case = %(use_case)s
    AND step > extract(epoch FROM clock.now - make_interval(secs => %(window_seconds)s))
        / %(step_seconds)s::float8 - 1
GROUP BY tenant_id, type, clock.now
HAVING sum(ended) >= %(least_ended)s;

-- name: open_breakers
INSERT INTO jobs_breakers (use_case, tenant_id, type, opened_at, probed_at)
SELECT %(use_case)s, flow.tenant_id, flow.type, clock.now, clock.now
FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock,
    unnest(%(tenant_ids)s::text[], %(types)s::text[]) AS flow (tenant_id, type)
ON CONFLICT DO NOTHING;

-- name: probe_breakers
-- A probe of these flows was leased: the next one is due in a while, and what earlier ones said
-- no longer counts.
UPDATE jobs_breakers AS breaker
SET probed_at = coalesce(%(now)s::timestamptz, clock_timestamp()), probe_succeeded = false
FROM unnest(%(tenant_ids)s::text[], %(types)s::text[]) AS flow (tenant_id, type)
WHERE breaker.use_case = %(use_case)s
    AND (breaker.tenant_id, breaker.type) = (flow.tenant_id, flow.type);

-- name: close_breakers
-- The counts go too, or what failed before would open the breaker again.
WITH flow AS (
    SELECT * FROM unnest(%(tenant_ids)s::text[], %(types)s::text[]) AS flow (tenant_id, type)
),
forgotten AS (
    DELETE FROM jobs_endings AS ending USING flow
    WHERE ending.use_case = %(use_case)s
        AND (ending.tenant_id, ending.type) = (flow.tenant_id, flow.type)
)
DELETE FROM jobs_breakers AS breaker USING flow
WHERE breaker.use_case = %(use_case)s
    AND (breaker.tenant_id, breaker.type) = (flow.tenant_id, flow.type);

-- name: get_capacity
SELECT
    capacity,
    extract(epoch FROM clock.now - told_at)::float8 AS told_seconds,
    extract(epoch FROM clock.now - changed_at)::float8 AS changed_seconds
FROM jobs_capacities,
    (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
WHERE use_case = %(use_case)s;

-- name: set_capacity
UPDATE jobs_capacities
SET capacity = %(capacity)s,
    changed_at = coalesce(%(now)s::timestamptz, clock_timestamp())
        - make_interval(secs => %(moved_seconds)s)
WHERE use_case = %(use_case)s;

-- name: restore_capacity
DELETE FROM jobs_capacities WHERE use_case = %(use_case)s;

-- name: find_rates
-- The time, in the first row at least, and how far ahead of an even pace tenants are; who is not in
-- the answer is not ahead at all.
SELECT clock.now, tenant_id, extract(epoch FROM next_at - clock.now)::float8 AS ahead_seconds
FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
LEFT JOIN jobs_rates ON use_case = %(use_case)s AND next_at > clock.now;

-- name: set_rates
INSERT INTO jobs_rates (use_case, tenant_id, next_at)
SELECT %(use_case)s, tenant_id, next_at
FROM unnest(%(tenant_ids)s::text[], %(next_ats)s::timestamptz[]) AS rate (tenant_id, next_at)
ON CONFLICT (use_case, tenant_id) DO UPDATE SET next_at = EXCLUDED.next_at;

-- name: prune_controls
-- What no longer says anything: counts older than the window, rates that have come, and rows of use
-- cases that nobody schedules any more.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
endings AS (
    DELETE FROM jobs_endings USING clock
    WHERE step <= extract(epoch FROM clock.now - make_interval(secs => %(window_seconds)s))
        / %(step_seconds)s::float8 - 1
),
rates AS (
    DELETE FROM jobs_rates USING clock
    WHERE use_case = %(use_case)s AND next_at < clock.now
),
breakers AS (
    DELETE FROM jobs_breakers USING clock WHERE probed_at < clock.now - interval '1 day'
)
DELETE FROM jobs_capacities USING clock WHERE told_at < clock.now - interval '1 day';
