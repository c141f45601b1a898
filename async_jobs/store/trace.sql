-- Statements of the export for simulations.

-- name: trace_finished
-- One page of what ran to its end, in the order in which it ended. What was cancelled is left out:
-- nobody measured how long it would have run.
SELECT
    id,
    finished_at,
    extract(epoch FROM coalesce(first_run_at, run_at))::float8 AS run_at,
    tenant_id,
    type,
    extract(epoch FROM finished_at - started_at)::float8 AS run_seconds,
    extract(epoch FROM delay_tolerance)::float8 AS delay_tolerance_seconds,
    priority,
    attempts - (status = 'succeeded')::int AS failing_attempts,
    max_attempts
FROM jobs
WHERE use_case = %(use_case)s
    AND finished_at >= %(after_at)s
    AND (finished_at, id) > (%(after_at)s, %(after_id)s)
    AND status IN ('succeeded', 'dead')
    AND started_at <= finished_at
ORDER BY finished_at, id
LIMIT %(most)s;
