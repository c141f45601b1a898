-- One job by itself, the commonest of all statements. As in jobs.sql.

-- name: insert_job
-- What insert_jobs does for many, without its arrays: it takes the server three quarters of the
-- time, and its caller two thirds.
WITH stored AS (
    INSERT INTO jobs (
        id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance, deadline_at,
        priority, max_attempts, backoff_policy, due, trace_context, created_at, updated_at,
        timeout_seconds
    )
    SELECT
        %(id)b::uuid, %(tenant_id)s::text, %(use_case)s::text, %(type)s::text, %(queue)s::text,
        %(payload_json)s::text::jsonb, promise.run_at, promise.tolerance,
        promise.run_at + promise.tolerance, %(priority)s::smallint, %(max_attempts)s::int,
        %(backoff_json)s::text::jsonb, promise.run_at <= clock.now,
        %(trace_context)s::text::jsonb, clock.now, clock.now, %(timeout_seconds)s::float8
    FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
    CROSS JOIN LATERAL (SELECT coalesce(%(run_at)s::timestamptz, clock.now) AS run_at) AS asked
    CROSS JOIN LATERAL (
        SELECT
            asked.run_at,
            make_interval(secs => CASE WHEN %(latest_deadline_at)s::timestamptz IS NULL
                THEN %(delay_tolerance_seconds)s::float8 ELSE least(
                    %(delay_tolerance_seconds)s::float8, greatest(0, extract(
                        epoch FROM %(latest_deadline_at)s::timestamptz - asked.run_at)::float8)
                ) END) AS tolerance
    ) AS promise
)
SELECT pg_notify('async_jobs_due', hint) FROM unnest(%(hints)s::text[]) AS hint;
