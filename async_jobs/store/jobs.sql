-- Every move of a job, on batches. Conventions:
--   * `now` NULL means the database's clock; tests and simulations pass a time.
--   * clock_timestamp(), not now(): now() stands still while a write waits for a row lock,
--     and a lease that ran out in the meantime would look alive.
--   * where an index is to end at the clock, it is read in a subquery, once: a clock that is read
--     anew for each row cannot end a scan, which then reads everything that has not come yet.
--   * durations travel as seconds and become intervals without days.
--   * `%(...)b` sends arrays of ids and fences in binary: psycopg writes a UUID as text in eight times
--     the time.
--   * `id = ANY (ARRAY (SELECT ...))` keeps the planner from joining the whole table
--     when it cannot see how few rows the inner query gives. Where the inner query locks them,
--     `ctid` saves a second search for each row: a locked row cannot move. One that moved between
--     the statement's snapshot and its lock is left for the next time.
--   * `CASE WHEN status = 'running' THEN true END` hides the status from the planner. Its statistics
--     may say that nothing runs or is leased; it would expect one such row and compare every job
--     with every ticket (measured: 300 ms instead of 30 for 476 jobs).

-- name: insert_jobs
-- Jobs without a dedupe_key: nothing to look up, nothing to return but the hints, which wake
-- whoever listens in the same commit (never needed: polling finds the jobs too). A column that has
-- one value throughout is given as that value, its array as NULL. Payloads come as one text, a line
-- each: JSON has no line break within.
WITH stored AS (
    INSERT INTO jobs (
        id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance, deadline_at,
        priority, max_attempts, backoff_policy, due, trace_context, created_at, updated_at,
        timeout_seconds
    )
    SELECT
        new.id,
        coalesce(new.tenant_id, %(tenant_id)s::text), coalesce(new.use_case, %(use_case)s::text),
        coalesce(new.type, %(type)s::text), coalesce(new.queue, %(queue)s::text),
        new.payload::jsonb, promise.run_at, promise.tolerance, promise.run_at + promise.tolerance,
        coalesce(new.priority, %(priority)s::smallint),
        coalesce(new.max_attempts, %(max_attempts)s::int),
        coalesce(new.backoff_policy, %(backoff_json)s::text)::jsonb, promise.run_at <= clock.now,
        coalesce(new.trace_context, %(trace_context)s::text)::jsonb, clock.now, clock.now,
        coalesce(new.timeout_seconds, %(timeout_seconds)s::float8)
    FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock,
        unnest(
            %(ids)b::uuid[], %(tenant_ids)s::text[], %(use_cases)s::text[], %(types)s::text[],
            %(queues)s::text[], string_to_array(%(payloads)s, E'\n'), %(run_ats)s::timestamptz[],
            %(tolerances_seconds)s::float8[], %(priorities)s::smallint[], %(most_attempts)s::int[],
            %(backoff_policies)s::text[], %(trace_contexts)s::text[],
            %(latest_deadlines)s::timestamptz[], %(timeouts_seconds)s::float8[]
        ) AS new (
            id, tenant_id, use_case, type, queue, payload, run_at,
            tolerance_seconds, priority, max_attempts, backoff_policy, trace_context,
            latest_deadline_at, timeout_seconds
        )
    CROSS JOIN LATERAL (
        SELECT
            coalesce(new.run_at, %(run_at)s::timestamptz, clock.now) AS run_at,
            coalesce(new.tolerance_seconds, %(delay_tolerance_seconds)s::float8) AS seconds,
            coalesce(new.latest_deadline_at, %(latest_deadline_at)s::timestamptz) AS latest
    ) AS asked
    CROSS JOIN LATERAL (
        SELECT
            asked.run_at,
            make_interval(secs => CASE WHEN asked.latest IS NULL THEN asked.seconds ELSE least(
                asked.seconds, greatest(0, extract(epoch FROM asked.latest - asked.run_at)::float8)
                ) END) AS tolerance
    ) AS promise
)
SELECT pg_notify('async_jobs_due', topic) FROM unnest(%(hints)s::text[]) AS hint (topic);

-- name: insert_absent_jobs
-- Jobs that may be there already: their caller chose the id, or they have a dedupe_key (one
-- unfinished job per tenant and key). DO NOTHING waits for a twin that is being inserted right now,
-- but no longer than `patience` where several callers share the statement; gives the ids that
-- are new.
WITH clock AS MATERIALIZED (
    SELECT
        coalesce(%(now)s::timestamptz, clock_timestamp()) AS now,
        CASE WHEN %(patience)s::text IS NOT NULL
            THEN set_config('lock_timeout', %(patience)s::text, true) END
),
stored AS (
    INSERT INTO jobs (
        id, tenant_id, use_case, type, queue, payload, run_at, delay_tolerance, deadline_at,
        priority, max_attempts, backoff_policy, due, trace_context, created_at, updated_at,
        timeout_seconds, dedupe_key
    )
    SELECT
        new.id,
        coalesce(new.tenant_id, %(tenant_id)s::text), coalesce(new.use_case, %(use_case)s::text),
        coalesce(new.type, %(type)s::text), coalesce(new.queue, %(queue)s::text),
        new.payload::jsonb, promise.run_at, promise.tolerance, promise.run_at + promise.tolerance,
        coalesce(new.priority, %(priority)s::smallint),
        coalesce(new.max_attempts, %(max_attempts)s::int),
        coalesce(new.backoff_policy, %(backoff_json)s::text)::jsonb, promise.run_at <= clock.now,
        coalesce(new.trace_context, %(trace_context)s::text)::jsonb, clock.now, clock.now,
        coalesce(new.timeout_seconds, %(timeout_seconds)s::float8), new.dedupe_key
    FROM clock,
        unnest(
            %(ids)b::uuid[], %(tenant_ids)s::text[], %(use_cases)s::text[], %(types)s::text[],
            %(queues)s::text[], string_to_array(%(payloads)s, E'\n'), %(run_ats)s::timestamptz[],
            %(tolerances_seconds)s::float8[], %(priorities)s::smallint[], %(most_attempts)s::int[],
            %(backoff_policies)s::text[], %(trace_contexts)s::text[],
            %(latest_deadlines)s::timestamptz[], %(timeouts_seconds)s::float8[],
            %(dedupe_keys)s::text[]
        ) AS new (
            id, tenant_id, use_case, type, queue, payload, run_at, tolerance_seconds, priority,
            max_attempts, backoff_policy, trace_context, latest_deadline_at, timeout_seconds,
            dedupe_key
        )
    CROSS JOIN LATERAL (
        SELECT
            coalesce(new.run_at, %(run_at)s::timestamptz, clock.now) AS run_at,
            coalesce(new.tolerance_seconds, %(delay_tolerance_seconds)s::float8) AS seconds,
            coalesce(new.latest_deadline_at, %(latest_deadline_at)s::timestamptz) AS latest
    ) AS asked
    CROSS JOIN LATERAL (
        SELECT
            asked.run_at,
            make_interval(secs => CASE WHEN asked.latest IS NULL THEN asked.seconds ELSE least(
                asked.seconds, greatest(0, extract(epoch FROM asked.latest - asked.run_at)::float8)
                ) END) AS tolerance
    ) AS promise
    ORDER BY coalesce(new.tenant_id, %(tenant_id)s::text), new.dedupe_key, new.id
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT
    stored.id,
    (SELECT count(pg_notify('async_jobs_due', topic))
     FROM unnest(%(hints)s::text[]) AS hint (topic)) AS hinted
FROM stored;

-- name: find_stored_jobs
-- What stands in the way of jobs that were not inserted: the one with the id, else the unfinished one
-- with the dedupe_key; and whether it asks for the same.
SELECT new.id AS asked_id, found.id AS job_id, found.same_request
FROM unnest(
    %(ids)b::uuid[], %(tenant_ids)s::text[], %(use_cases)s::text[], %(types)s::text[],
    %(payloads)b::text[], %(dedupe_keys)s::text[]
) AS new (id, tenant_id, use_case, type, payload, dedupe_key)
CROSS JOIN LATERAL (
    SELECT
        twin.id,
        twin.tenant_id = new.tenant_id
            AND twin.use_case = new.use_case
            AND twin.type = new.type
            AND twin.dedupe_key IS NOT DISTINCT FROM new.dedupe_key
            AND twin.payload = new.payload::jsonb AS same_request
    FROM (
        (SELECT * FROM jobs WHERE jobs.id = new.id)
        UNION ALL
        (SELECT * FROM jobs
         WHERE jobs.tenant_id = new.tenant_id AND jobs.dedupe_key = new.dedupe_key
            AND jobs.dedupe_key IS NOT NULL AND jobs.finished_at IS NULL)
    ) AS twin
    LIMIT 1) AS found;

-- name: count_unfinished
-- Unfinished jobs of a tenant, counted no further than `most`: three index ranges, each cut off.
SELECT count(*) AS unfinished
FROM (
    (SELECT FROM jobs
     WHERE due AND tenant_id = %(tenant_id)s AND use_case = ANY (%(use_cases)s)
     LIMIT %(most)s)
    UNION ALL
    (SELECT FROM jobs
     WHERE leased_at IS NOT NULL AND tenant_id = %(tenant_id)s AND use_case = ANY (%(use_cases)s)
     LIMIT %(most)s)
    UNION ALL
    (SELECT FROM jobs
     WHERE NOT due AND leased_at IS NULL AND finished_at IS NULL AND tenant_id = %(tenant_id)s
     LIMIT %(most)s)
) AS unfinished_jobs;

-- name: sample_running
-- How many jobs of a tenant run, and for how long on average: its pace. Read only when it is refused.
SELECT
    count(*)::int AS running,
    coalesce(avg(extract(epoch
        FROM coalesce(%(now)s::timestamptz, clock_timestamp()) - started_at)), 0)::float8
        AS mean_age_seconds
FROM (
    SELECT started_at FROM jobs
    WHERE leased_at IS NOT NULL AND status = 'running'
        AND tenant_id = %(tenant_id)s AND use_case = ANY (%(use_cases)s)
    LIMIT %(most)s
) AS running_jobs;

-- name: find_live_twins
-- Which of these dedupe keys are taken: they will not add to the tenant's backlog.
SELECT count(*) AS twins
FROM jobs
WHERE tenant_id = %(tenant_id)s
    AND dedupe_key = ANY (%(dedupe_keys)s)
    AND dedupe_key IS NOT NULL
    AND finished_at IS NULL;

-- name: lock_tenants
-- Enqueues of a tenant with a quota go one after the other, from here to their commit.
-- Sorted, so that two batches with the same tenants cannot wait for each other.
SELECT pg_advisory_xact_lock(hashtextextended('async_jobs quota ' || tenant_id, 0))
FROM unnest(%(tenant_ids)s::text[]) AS tenant (tenant_id);

-- name: hint_due
-- Wakes schedulers for jobs that came back by themselves: a retry, a release.
SELECT pg_notify('async_jobs_due', topic) FROM unnest(%(topics)s::text[]) AS hint (topic);

-- name: ping
-- Does the database answer?
SELECT 1;

-- name: get_job
-- With a tenant, another one's job is looked up and not found exactly like none.
SELECT * FROM jobs
WHERE id = %(id)s AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s::text);

-- name: survey
-- One look at the whole table for an idle scheduler: which use cases have work, whether a lease
-- ran out, and how long until something else becomes due. Index heads only.
SELECT
    ARRAY(
        SELECT use_case FROM unnest(%(use_cases)s::text[]) AS known (use_case)
        WHERE EXISTS (SELECT FROM jobs WHERE jobs.use_case = known.use_case AND due)
    ) AS use_cases_with_work,
    (SELECT extract(epoch FROM run_at - coalesce(%(now)s::timestamptz, clock_timestamp()))::float8
     FROM jobs WHERE NOT due AND leased_at IS NULL AND finished_at IS NULL
     ORDER BY run_at LIMIT 1) AS next_due_in_seconds,
    (SELECT extract(epoch
            FROM min(lease_expires_at) - coalesce(%(now)s::timestamptz, clock_timestamp()))::float8
     FROM jobs WHERE leased_at IS NOT NULL) AS next_expiry_in_seconds;

-- name: promote_due
-- Scheduled jobs whose time has come begin to wait.
UPDATE jobs
SET due = true
WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM jobs
        WHERE NOT due AND leased_at IS NULL AND finished_at IS NULL
            AND run_at <= (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()))
        ORDER BY run_at
        LIMIT %(most)s
        FOR UPDATE SKIP LOCKED
    ))
RETURNING use_case;

-- name: release_jobs
-- Take a lease back before the job was started: its message was not accepted or not wanted.
UPDATE jobs
SET due = true,
    probe = false,
    leased_at = NULL,
    lease_expires_at = NULL,
    enqueue_failed = %(enqueue_failed)s,
    updated_at = coalesce(%(now)s::timestamptz, clock_timestamp())
FROM unnest(%(ids)b::uuid[], %(lease_seqs)b::bigint[]) AS ticket (id, lease_seq)
WHERE jobs.id = ticket.id
    AND jobs.lease_seq = ticket.lease_seq
    AND CASE WHEN jobs.leased_at IS NOT NULL AND jobs.status = 'pending' THEN true END
RETURNING jobs.id;

-- name: renew_leases
-- Sent, but no worker had a slot yet: their sender lives, so their leases go on, until the
-- dispatch lease is over.
UPDATE jobs
SET lease_expires_at = least(
        clock.now + make_interval(secs => %(lease_seconds)s),
        leased_at + make_interval(secs => %(most_seconds)s))
FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock,
    unnest(%(ids)b::uuid[], %(lease_seqs)b::bigint[]) AS ticket (id, lease_seq)
WHERE jobs.id = ticket.id
    AND jobs.lease_seq = ticket.lease_seq
    AND CASE WHEN jobs.leased_at IS NOT NULL AND jobs.status = 'pending' THEN true END
RETURNING jobs.id;

-- name: start_jobs
-- See functions.sql. What a client may be unable to read leaves as text: one such row must not take
-- its neighbours with it.
SELECT
    payload::text, id, lease_seq, tenant_id, use_case, type, queue, attempts,
    max_attempts, backoff_policy::text, run_at, deadline_at, started_at, lease_expires_at,
    CASE WHEN first_run_at BETWEEN '1900-01-01 00:00Z' AND '9000-01-01 00:00Z' THEN first_run_at END,
    probe, attempts = 1 AND first_started_at >= started_at, timeout_seconds,
    CASE WHEN trace_context IS NOT NULL THEN jsonb_build_object(
        'traceparent', trace_context ->> 'traceparent',
        'tracestate', trace_context ->> 'tracestate',
        'previous', trace_context ->> 'previous')::text END
FROM jobs_start(
    %(ids)b::uuid[], %(lease_seqs)b::bigint[], %(worker)s::text, %(lease_seconds)s::float8,
    %(now)s::timestamptz);

-- name: start_leased
-- See functions.sql; the columns are those of start_jobs.
SELECT
    payload::text, id, lease_seq, tenant_id, use_case, type, queue, attempts, max_attempts,
    backoff_policy::text, run_at, deadline_at, started_at, lease_expires_at,
    CASE WHEN first_run_at BETWEEN '1900-01-01 00:00Z' AND '9000-01-01 00:00Z' THEN first_run_at END,
    probe, attempts = 1 AND first_started_at >= started_at, timeout_seconds,
    CASE WHEN trace_context IS NOT NULL THEN jsonb_build_object(
        'traceparent', trace_context ->> 'traceparent',
        'tracestate', trace_context ->> 'tracestate',
        'previous', trace_context ->> 'previous')::text END
FROM jobs_start_leased(
    %(queues)s::text[], %(slots)s::int, %(worker)s::text, %(lease_seconds)s::float8,
    %(now)s::timestamptz);

-- name: extend_attempts
-- The heartbeat: every attempt of a worker in one statement. What does not come back is lost.
UPDATE jobs
SET lease_expires_at = coalesce(%(now)s::timestamptz, clock_timestamp())
        + make_interval(secs => %(lease_seconds)s)
FROM unnest(%(ids)b::uuid[], %(lease_seqs)b::bigint[]) AS held (id, lease_seq)
WHERE jobs.id = held.id
    AND jobs.lease_seq = held.lease_seq
    AND CASE WHEN status = 'running' THEN true END
RETURNING jobs.id, cancel_requested_at IS NOT NULL AS cancel_requested;

-- name: finish_attempts
-- Succeed, retry, snooze, bury, cancel and release of running jobs: see functions.sql.
SELECT id
FROM jobs_finish(
    %(ids)b::uuid[], %(lease_seqs)b::bigint[], %(statuses)s::text[], %(delays_seconds)s::float8[],
    %(attempts_back)s::int[], %(errors)s::text[], %(results)s::text[], %(traceparents)s::text[],
    %(now)s::timestamptz) AS id;

-- name: rescue_jobs
-- Take back what nobody renewed. A leased job that was never started waits again as it was; a
-- started one has used its attempt and runs again at once, or is dead if that was the last.
-- lease_seq stays: the next lease makes it larger, and until then no start can match.
UPDATE jobs
SET status = CASE
        WHEN status = 'pending' THEN 'pending'
        WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
        WHEN attempts >= max_attempts THEN 'dead'
        ELSE 'pending' END,
    finished_at = CASE
        WHEN status = 'running' AND (cancel_requested_at IS NOT NULL OR attempts >= max_attempts)
        THEN clock.now END,
    due = status = 'pending' OR (cancel_requested_at IS NULL AND attempts < max_attempts),
    is_retry = is_retry OR status = 'running',
    probe = false,
    run_at = CASE WHEN status = 'running' AND cancel_requested_at IS NULL
            AND attempts < max_attempts
        THEN clock.now ELSE run_at END,
    deadline_at = CASE WHEN status = 'running' AND cancel_requested_at IS NULL
            AND attempts < max_attempts
        THEN clock.now ELSE run_at END + delay_tolerance,
    first_run_at = CASE WHEN status = 'running' AND cancel_requested_at IS NULL
            AND attempts < max_attempts
        THEN coalesce(first_run_at, run_at) ELSE first_run_at END,
    last_error = CASE WHEN status = 'running' THEN jsonb_build_object(
            'type', 'WorkerLost',
            'message', 'the worker stopped renewing its lease: it crashed, hung or lost the database',
            'attempt', attempts, 'worker', worker, 'lease_seq', lease_seq
        ) ELSE last_error END,
    leased_at = NULL,
    lease_expires_at = NULL,
    updated_at = clock.now
FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM jobs
        WHERE leased_at IS NOT NULL
            AND lease_expires_at <= coalesce(%(now)s::timestamptz, clock_timestamp())
        ORDER BY lease_expires_at
        LIMIT %(most)s
        FOR UPDATE SKIP LOCKED
    ))
RETURNING
    id AS job_id, lease_seq, tenant_id, use_case, type, queue, attempts, status, worker,
    coalesce(last_error ->> 'lease_seq' = lease_seq::text, false) AS was_running;

-- name: cancel_job
-- Pending: over at once. Running: asked for, and the worker's next heartbeat learns of it. With an
-- `actor` the audit line is in the same commit; who asks once more leaves none.
WITH moved AS (
    UPDATE jobs
    SET status = CASE WHEN status = 'pending' THEN 'cancelled' ELSE status END,
        finished_at = CASE WHEN status = 'pending' THEN clock.now END,
        due = false,
        probe = probe AND status = 'running',
        leased_at = CASE WHEN status = 'pending' THEN NULL ELSE leased_at END,
        lease_expires_at = CASE WHEN status = 'pending' THEN NULL ELSE lease_expires_at END,
        cancel_requested_at = coalesce(cancel_requested_at, clock.now),
        updated_at = clock.now
    FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
    WHERE id = %(id)s AND status IN ('pending', 'running')
        AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s::text)
    RETURNING jobs.*
),
audited AS (
    INSERT INTO jobs_audit (acted_at, actor, move, use_case, tenant_id, job_id)
    SELECT updated_at, %(actor)s::text, 'cancel', use_case, tenant_id, id
    FROM moved WHERE %(actor)s::text IS NOT NULL AND cancel_requested_at = updated_at
)
SELECT * FROM moved;

-- name: requeue_job
-- A finished job once more, with fresh attempts and a fresh deadline.
WITH moved AS (
    UPDATE jobs
    SET status = 'pending',
        due = true,
        run_at = clock.now,
        deadline_at = clock.now + delay_tolerance,
        is_retry = false,
        first_run_at = NULL,
        first_started_at = NULL,
        finished_at = NULL,
        started_at = NULL,
        cancel_requested_at = NULL,
        result = NULL,
        max_attempts = attempts + %(more_attempts)s,
        updated_at = clock.now
    FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
    WHERE id = %(id)s AND finished_at IS NOT NULL
        AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s::text)
    RETURNING jobs.*
),
audited AS (
    INSERT INTO jobs_audit (acted_at, actor, move, use_case, tenant_id, job_id)
    SELECT updated_at, %(actor)s::text, 'requeue', use_case, tenant_id, id
    FROM moved WHERE %(actor)s::text IS NOT NULL
)
SELECT * FROM moved;

-- name: prune_finished
-- Old finished jobs of one use case, oldest first, a batch at a time.
DELETE FROM jobs
WHERE id = ANY (ARRAY(
        SELECT id FROM jobs
        WHERE use_case = %(use_case)s
            AND finished_at < (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()))
                - make_interval(secs => %(retention_seconds)s)
        ORDER BY finished_at
        LIMIT %(most)s
        FOR UPDATE SKIP LOCKED
    ))
RETURNING id;
