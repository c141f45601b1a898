-- What becomes of jobs whose deadline has passed. Conventions as in jobs.sql.

-- name: end_late
-- A use case that does not run late jobs ends those that wait: oldest deadlines first, a batch at a
-- time. Runs in a scheduler's turn; what is being cancelled or leased at the moment is skipped.
UPDATE jobs
SET status = %(status)s,
    due = false,
    finished_at = clock.now,
    last_error = jsonb_build_object(
        'type', 'DeadlineMissed',
        'message', 'not started: its deadline had passed '
            || round(extract(epoch FROM clock.now - deadline_at), 3) || ' s before',
        'attempt', attempts,
        'late_by_seconds', round(extract(epoch FROM clock.now - deadline_at), 3)
    ),
    updated_at = clock.now
FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
WHERE id = ANY (ARRAY(
        SELECT id FROM jobs
        WHERE use_case = %(use_case)s AND due
            AND deadline_at < (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()))
        ORDER BY deadline_at
        LIMIT %(most)s
        FOR UPDATE SKIP LOCKED
    ))
RETURNING
    id AS job_id, tenant_id, type, queue, attempts, last_error,
    extract(epoch FROM clock.now - deadline_at)::float8 AS late_by_seconds,
    extract(epoch FROM delay_tolerance)::float8 AS tolerance_seconds,
    first_started_at IS NULL AS never_started;
