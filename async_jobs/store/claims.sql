-- Claims: workers lease and start waiting jobs in one step, by a scheduler's leave. As in jobs.sql.

-- name: ask_for_grant
-- A busy worker would claim jobs itself. Worth a write only when the last one is growing old.
INSERT INTO jobs_grants (use_case, asked_at)
SELECT use_case, clock_timestamp() FROM unnest(%(use_cases)s::text[]) AS asked (use_case)
ON CONFLICT (use_case) DO UPDATE SET asked_at = clock_timestamp()
WHERE jobs_grants.asked_at < clock_timestamp() - make_interval(secs => %(old_seconds)s);

-- name: take_granted_turn
-- The turn in the one use case that comes next by its most urgent job, as lock_use_case takes it, and
-- what it was granted for. No grant, or a job that is late: its jobs come by leases alone. Whether
-- any of the others was granted, and whether any job waits, tells a worker to try again soon.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
next AS MATERIALIZED (
    SELECT served.use_case, head.deadline_at >= clock.now AS is_timely
    FROM clock, unnest(%(use_cases)s::text[]) AS served (use_case)
    CROSS JOIN LATERAL (
        SELECT deadline_at FROM jobs
        WHERE jobs.use_case = served.use_case AND due
        ORDER BY deadline_at LIMIT 1
    ) AS head
    ORDER BY head.deadline_at
    LIMIT 1
),
granted AS MATERIALIZED (
    SELECT use_case, capacity FROM jobs_grants
    WHERE use_case = ANY (%(use_cases)s::text[]) AND expires_at > clock_timestamp()
),
chosen AS MATERIALIZED (
    SELECT use_case, capacity FROM next JOIN granted USING (use_case) WHERE is_timely
)
SELECT
    EXISTS (SELECT FROM granted) AS any_granted,
    EXISTS (SELECT FROM next) AS some_wait,
    chosen.use_case,
    chosen.capacity,
    CASE WHEN chosen.use_case IS NOT NULL THEN pg_try_advisory_xact_lock(
        hashtextextended('async_jobs dispatch ' || chosen.use_case, 0)) END AS has_turn
FROM set_config('idle_in_transaction_session_timeout', %(longest_pause_ms)s::text, true)
LEFT JOIN chosen ON true;

-- name: grant_claims
-- Until it expires, workers that have the turn may claim up to this capacity. Runs under
-- lock_use_case.
UPDATE jobs_grants
SET capacity = %(capacity)s,
    expires_at = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE use_case = %(use_case)s;

-- name: claim_due
-- Lease and start as one version of the row: the most urgent waiting jobs. Runs under lock_use_case,
-- after count_in_flight.
UPDATE jobs
SET due = false,
    status = 'running',
    lease_seq = lease_seq + 1,
    attempts = attempts + 1,
    leased_at = coalesce(%(now)s::timestamptz, clock_timestamp()),
    started_at = coalesce(%(now)s::timestamptz, clock_timestamp()),
    first_started_at = coalesce(first_started_at, %(now)s::timestamptz, clock_timestamp()),
    lease_expires_at = coalesce(%(now)s::timestamptz, clock_timestamp())
        + make_interval(secs => %(lease_seconds)s),
    enqueue_failed = false,
    worker = %(worker)s,
    updated_at = coalesce(%(now)s::timestamptz, clock_timestamp())
WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM jobs
        WHERE use_case = %(use_case)s AND due
        ORDER BY deadline_at, priority DESC, id
        LIMIT %(slots)s
        FOR UPDATE SKIP LOCKED
    ))
    AND attempts < max_attempts
    AND queue = ANY (%(queues)s::text[])
RETURNING
    payload::text, id, lease_seq, tenant_id, use_case, type, queue, attempts, max_attempts,
    backoff_policy::text, run_at, deadline_at, started_at, lease_expires_at,
    CASE WHEN first_run_at BETWEEN '1900-01-01 00:00Z' AND '9000-01-01 00:00Z' THEN first_run_at END,
    probe, attempts = 1 AND first_started_at >= started_at, timeout_seconds,
    CASE WHEN trace_context IS NOT NULL THEN jsonb_build_object(
        'traceparent', trace_context ->> 'traceparent',
        'tracestate', trace_context ->> 'tracestate',
        'previous', trace_context ->> 'previous')::text END;
