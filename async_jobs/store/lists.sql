-- Lists of jobs, page by page. Conventions as in jobs.sql.

-- name: list_jobs
-- Planned anew for each call (never prepared), so that absent filters cost nothing. What may be
-- large is read only if it is asked for. What holds a lease is in another index than all the rest:
-- the newest of both sides are merged, and the capacities bound the first of them. The other side
-- is read as in find_matching: no more than `look` rows, and where that was not enough to find
-- `most`, every row says how far it came (`looked_to`), a row without a job if there is none.
WITH held AS MATERIALIZED (
    SELECT id FROM jobs
    WHERE leased_at IS NOT NULL
        AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s::text)
        AND (%(use_case)s::text IS NULL OR use_case = %(use_case)s::text)
        AND (%(status)s::text IS NULL OR status = %(status)s::text)
        AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
),
looked AS (
    SELECT id, use_case, status FROM jobs
    WHERE leased_at IS NULL
        AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s::text)
        AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
        AND %(status)s::text IS DISTINCT FROM 'running'
    ORDER BY id DESC
    LIMIT %(look)s
),
others AS MATERIALIZED (
    SELECT id FROM looked
    WHERE (%(use_case)s::text IS NULL OR use_case = %(use_case)s::text)
        AND (%(status)s::text IS NULL OR status = %(status)s::text)
    ORDER BY id DESC
    LIMIT %(most)s
),
reached AS MATERIALIZED (
    SELECT CASE WHEN (SELECT count(*) FROM others) < %(most)s THEN (
        SELECT id FROM jobs
        WHERE leased_at IS NULL
            AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s::text)
            AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
            AND %(status)s::text IS DISTINCT FROM 'running'
        ORDER BY id DESC
        LIMIT 1 OFFSET %(look)s - 1
    ) END AS looked_to
)
SELECT
    id, tenant_id, use_case, type, queue, status, run_at, delay_tolerance, deadline_at,
    priority, attempts, max_attempts, backoff_policy, lease_expires_at, last_error,
    dedupe_key, enqueue_failed, created_at, updated_at, lease_seq, due, is_retry, probe,
    leased_at, started_at, finished_at, first_run_at, first_started_at, cancel_requested_at,
    worker, trace_context, timeout_seconds,
    CASE WHEN %(payloads)s THEN payload END AS payload,
    CASE WHEN %(payloads)s THEN result END AS result,
    reached.looked_to
FROM reached LEFT JOIN jobs ON id = ANY (ARRAY(
        SELECT id FROM (TABLE held UNION ALL TABLE others) AS either CROSS JOIN reached
        WHERE looked_to IS NULL OR id >= looked_to
        ORDER BY id DESC
        LIMIT %(most)s
    ))
ORDER BY id DESC;
