-- A scheduler's turn in one use case. Conventions as in jobs.sql.

-- name: lock_use_case
-- Only one scheduler at a time counts and leases in a use case. Taken in a statement of its own:
-- the count must see what the previous holder committed. Also whether a promise is broken and
-- whether the control tables hold anything: both decide how to go on and may be a moment old. And how
-- long the server waits between two of the turn's statements before it ends the turn; only until the
-- commit, so poolers may share the session.
SELECT
    pg_try_advisory_xact_lock(hashtextextended('async_jobs dispatch ' || %(use_case)s, 0))
        AS granted,
    coalesce(
        (SELECT deadline_at FROM jobs
         WHERE use_case = %(use_case)s AND due
         ORDER BY deadline_at LIMIT 1) < coalesce(%(now)s::timestamptz, clock_timestamp()),
        false) AS pressure,
    EXISTS (SELECT FROM jobs_endings WHERE use_case = %(use_case)s)
        OR EXISTS (SELECT FROM jobs_breakers WHERE use_case = %(use_case)s)
        OR EXISTS (SELECT FROM jobs_capacities WHERE use_case = %(use_case)s) AS controlled,
    (SELECT asked_at > clock_timestamp() - make_interval(secs => %(asked_seconds)s)
     FROM jobs_grants WHERE use_case = %(use_case)s) IS TRUE AS asked,
    (SELECT capacity FROM jobs_grants
     WHERE use_case = %(use_case)s AND expires_at > clock_timestamp()) AS grant_capacity
FROM set_config('idle_in_transaction_session_timeout', %(longest_pause_ms)s::text, true);

-- name: count_in_flight
-- Occupancy by tenant. Leases that ran out count until rescue takes them back, so that
-- a worker that is merely late can never bring a use case over its capacity. What was claimed
-- was leased and started in one statement.
SELECT
    tenant_id,
    count(*) AS held,
    count(*) FILTER (WHERE status = 'pending') AS unstarted,
    count(*) FILTER (WHERE status = 'pending' AND leased_at
        < coalesce(%(now)s::timestamptz, clock_timestamp()) - make_interval(secs => %(old_seconds)s)
    ) AS old,
    count(*) FILTER (WHERE status = 'running' AND started_at < leased_at + interval '1 millisecond'
        AND leased_at > coalesce(%(now)s::timestamptz, clock_timestamp())
            - make_interval(secs => %(new_seconds)s)
    ) > 0 AS claimed
FROM jobs
WHERE use_case = %(use_case)s AND leased_at IS NOT NULL
GROUP BY tenant_id;

-- name: lease_due
-- Earliest deadline first. Runs under lock_use_case.
UPDATE jobs
SET due = false,
    lease_seq = lease_seq + 1,
    leased_at = coalesce(%(now)s::timestamptz, clock_timestamp()),
    lease_expires_at = coalesce(%(now)s::timestamptz, clock_timestamp())
        + make_interval(secs => %(lease_seconds)s),
    enqueue_failed = false,
    updated_at = coalesce(%(now)s::timestamptz, clock_timestamp())
WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM jobs
        WHERE use_case = %(use_case)s AND due
        ORDER BY deadline_at, priority DESC, id
        LIMIT %(slots)s
        FOR UPDATE SKIP LOCKED
    ))
RETURNING
    id AS job_id, lease_seq, queue, tenant_id, type, deadline_at, priority,
    extract(epoch FROM deadline_at - leased_at)::float8 AS slack_seconds,
    extract(epoch FROM delay_tolerance)::float8 AS tolerance_seconds,
    CASE WHEN trace_context IS NOT NULL THEN jsonb_build_object(
        'traceparent', trace_context ->> 'traceparent',
        'tracestate', trace_context ->> 'tracestate')::text END AS trace_context;

-- name: hint_leased
-- Wakes workers that take their jobs straight from the table, in the commit of the lease.
SELECT pg_notify('async_jobs_leased', topic) FROM unnest(%(topics)s::text[]) AS hint (topic);

-- name: find_due
-- The most urgent waiting jobs whatever their flow: all, or those that are not late. The clock is
-- read in a subquery, once, so that the index can be entered at that time.
SELECT
    id AS job_id, tenant_id, type, is_retry, priority,
    extract(epoch FROM
        deadline_at - (SELECT coalesce(%(now)s::timestamptz, clock_timestamp())))::float8
        AS slack_seconds
FROM jobs
WHERE use_case = %(use_case)s AND due
    AND deadline_at >= CASE WHEN %(timely)s
        THEN (SELECT coalesce(%(now)s::timestamptz, clock_timestamp())) ELSE '-infinity' END
ORDER BY deadline_at, priority DESC, id
LIMIT %(most)s;

-- name: find_flows
-- Every flow with waiting jobs, with the slack of its most urgent job and, when that one is late,
-- of its first job in time. A loose index scan: its cost follows the flows, not their backlogs.
-- It begins after a given flow and ends after `most`.
WITH RECURSIVE clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
flow AS (
    (SELECT tenant_id, type, is_retry, priority, deadline_at, 1 AS position
     FROM jobs
     WHERE use_case = %(use_case)s AND due
        AND (tenant_id, type, is_retry, priority) > (
            %(after_tenant)s::text, %(after_type)s::text,
            %(after_retry)s::boolean, %(after_priority)s::smallint)
     ORDER BY tenant_id, type, is_retry, priority, deadline_at
     LIMIT 1)
    UNION ALL
    SELECT next.*, flow.position + 1
    FROM flow
    CROSS JOIN LATERAL (
        SELECT jobs.tenant_id, jobs.type, jobs.is_retry, jobs.priority, jobs.deadline_at
        FROM jobs
        WHERE use_case = %(use_case)s AND due
            AND (jobs.tenant_id, jobs.type, jobs.is_retry, jobs.priority)
                > (flow.tenant_id, flow.type, flow.is_retry, flow.priority)
        ORDER BY
            jobs.tenant_id, jobs.type, jobs.is_retry, jobs.priority, jobs.deadline_at
        LIMIT 1
    ) AS next
    WHERE flow.position < %(most)s
)
SELECT
    flow.tenant_id, flow.type, flow.is_retry, flow.priority,
    extract(epoch FROM flow.deadline_at - clock.now)::float8 AS slack_seconds,
    extract(epoch FROM CASE WHEN flow.deadline_at >= clock.now THEN flow.deadline_at ELSE (
        SELECT jobs.deadline_at FROM jobs
        WHERE use_case = %(use_case)s AND due
            AND jobs.tenant_id = flow.tenant_id AND jobs.type = flow.type
            AND jobs.is_retry = flow.is_retry AND jobs.priority = flow.priority
            AND jobs.deadline_at >= clock.now
        ORDER BY jobs.deadline_at LIMIT 1) END - clock.now)::float8 AS timely_slack_seconds
FROM flow, clock
ORDER BY flow.position;

-- name: find_candidates
-- The most urgent jobs of chosen lanes: the late or the timely side of a flow.
SELECT
    lane.number, head.id AS job_id,
    extract(epoch FROM head.deadline_at - clock.now)::float8 AS slack_seconds
FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
CROSS JOIN unnest(
        %(tenant_ids)s::text[], %(types)s::text[], %(retries)s::boolean[],
        %(priorities)s::smallint[], %(lates)s::boolean[]
    ) WITH ORDINALITY AS lane (tenant_id, type, is_retry, priority, late, number)
CROSS JOIN LATERAL (
    SELECT jobs.id, jobs.deadline_at FROM jobs
    WHERE use_case = %(use_case)s AND due
        AND jobs.tenant_id = lane.tenant_id AND jobs.type = lane.type
        AND jobs.is_retry = lane.is_retry AND jobs.priority = lane.priority
        AND jobs.deadline_at >= CASE WHEN lane.late THEN '-infinity' ELSE clock.now END
        AND jobs.deadline_at < CASE WHEN lane.late THEN clock.now ELSE 'infinity' END
    ORDER BY jobs.deadline_at, jobs.id
    LIMIT %(most)s
) AS head
ORDER BY lane.number, head.deadline_at, head.id;

-- name: lease_chosen
-- The same move for jobs that the fair share picked one by one. Runs under lock_use_case.
UPDATE jobs
SET due = false,
    probe = jobs.id = ANY (%(probes)s::uuid[]),
    lease_seq = lease_seq + 1,
    leased_at = coalesce(%(now)s::timestamptz, clock_timestamp()),
    lease_expires_at = coalesce(%(now)s::timestamptz, clock_timestamp())
        + make_interval(secs => %(lease_seconds)s),
    enqueue_failed = false,
    updated_at = coalesce(%(now)s::timestamptz, clock_timestamp())
WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM jobs WHERE id = ANY (%(ids)b::uuid[]) AND due FOR UPDATE SKIP LOCKED
    ))
RETURNING
    id AS job_id, lease_seq, queue, tenant_id, type, deadline_at, priority,
    extract(epoch FROM deadline_at - leased_at)::float8 AS slack_seconds,
    extract(epoch FROM delay_tolerance)::float8 AS tolerance_seconds,
    CASE WHEN trace_context IS NOT NULL THEN jsonb_build_object(
        'traceparent', trace_context ->> 'traceparent',
        'tracestate', trace_context ->> 'tracestate')::text END AS trace_context;

-- name: sample_finished
-- How long the newest finished jobs of a use case ran, since a moment.
SELECT
    tenant_id, type,
    extract(epoch FROM finished_at - started_at)::float8 AS ran_seconds,
    finished_at
FROM jobs
WHERE use_case = %(use_case)s
    AND finished_at > coalesce(%(since)s::timestamptz, '-infinity')
    AND started_at IS NOT NULL
ORDER BY finished_at DESC
LIMIT %(most)s;
