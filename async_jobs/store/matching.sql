-- Everything that matches a filter: found, cancelled, requeued. Conventions as in jobs.sql.

-- name: find_matching
-- Planned anew for each call. Most filters have no index, so a call reads no more than `look` rows
-- of a tenant, or of all, newest first, and says how far it came (`looked_to`) where that was not
-- enough to find `most`. It stops earlier as soon as it has found them. What holds a lease is in
-- another index: it is merged in as far down as the others were read.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
held AS (
    SELECT * FROM jobs
    WHERE leased_at IS NOT NULL
        AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s::text)
        AND (%(use_case)s::text IS NULL OR use_case = %(use_case)s::text)
        AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
        AND coalesce(%(status)s::text, 'leased') IN ('pending', 'leased', 'running')
    ORDER BY id DESC
),
looked AS (
    SELECT * FROM jobs
    WHERE leased_at IS NULL
        AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s::text)
        AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
        AND (%(first_id)s::uuid IS NULL OR id >= %(first_id)s::uuid)
        AND (%(last_id)s::uuid IS NULL OR id < %(last_id)s::uuid)
        AND coalesce(%(status)s::text, '') NOT IN ('leased', 'running')
    ORDER BY id DESC
    LIMIT %(look)s
),
matched AS MATERIALIZED (
    SELECT id, leased_at IS NOT NULL AS is_held
    FROM (SELECT * FROM held UNION ALL SELECT * FROM looked) AS job
    CROSS JOIN clock
    WHERE (%(use_case)s::text IS NULL OR use_case = %(use_case)s::text)
        AND (%(status)s::text IS NULL OR %(status)s::text IN (status, CASE
            WHEN status <> 'pending' THEN status
            WHEN leased_at IS NOT NULL THEN 'leased'
            WHEN due THEN 'waiting'
            ELSE 'scheduled' END))
        AND (%(type)s::text IS NULL OR type = %(type)s::text)
        AND (%(dedupe_key)s::text IS NULL OR dedupe_key = %(dedupe_key)s::text)
        AND (%(error)s::text IS NULL OR last_error ->> 'type' = %(error)s::text)
        AND (NOT %(failed)s OR last_error IS NOT NULL)
        AND (NOT %(late)s OR CASE
            WHEN status = 'pending' THEN deadline_at < clock.now
            ELSE coalesce(first_run_at, run_at) + delay_tolerance
                < coalesce(first_started_at, started_at, finished_at, clock.now) END)
        AND (%(enqueued_from)s::timestamptz IS NULL
            OR created_at >= %(enqueued_from)s::timestamptz)
        AND (%(enqueued_until)s::timestamptz IS NULL
            OR created_at < %(enqueued_until)s::timestamptz)
        AND (%(as_of)s::timestamptz IS NULL OR created_at < %(as_of)s::timestamptz)
        AND (%(run_from)s::timestamptz IS NULL OR run_at >= %(run_from)s::timestamptz)
        AND (%(run_until)s::timestamptz IS NULL OR run_at < %(run_until)s::timestamptz)
    ORDER BY id DESC
    LIMIT %(most)s
),
reached AS MATERIALIZED (
    SELECT CASE WHEN (SELECT count(*) < %(most)s OR (array_agg(is_held ORDER BY id))[1] FROM matched)
        THEN (
            SELECT id FROM jobs
            WHERE leased_at IS NULL
                AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s::text)
                AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
                AND (%(first_id)s::uuid IS NULL OR id >= %(first_id)s::uuid)
                AND (%(last_id)s::uuid IS NULL OR id < %(last_id)s::uuid)
                AND coalesce(%(status)s::text, '') NOT IN ('leased', 'running')
            ORDER BY id DESC
            LIMIT 1 OFFSET %(look)s - 1
        ) END AS looked_to
)
SELECT matched.id, reached.looked_to
FROM reached LEFT JOIN matched ON reached.looked_to IS NULL OR matched.id >= reached.looked_to
ORDER BY matched.id DESC;

-- name: find_unfinished_twin
-- The one job that holds a dedupe key, however old it is.
SELECT id FROM jobs
WHERE tenant_id = %(tenant_id)s AND dedupe_key = %(dedupe_key)s AND finished_at IS NULL;

-- name: list_chosen
-- These jobs, newest first, without what may be large.
SELECT
    id, tenant_id, use_case, type, queue, status, run_at, delay_tolerance, deadline_at,
    priority, attempts, max_attempts, backoff_policy, lease_expires_at, last_error,
    dedupe_key, enqueue_failed, created_at, updated_at, lease_seq, due, is_retry, probe,
    leased_at, started_at, finished_at, first_run_at, first_started_at, cancel_requested_at,
    worker, trace_context, timeout_seconds, NULL::jsonb AS payload, NULL::jsonb AS result
FROM jobs
WHERE id = ANY (%(ids)s::uuid[])
ORDER BY id DESC;

-- name: write_matching
-- The audit line of a move on all that matches, before its first batch: nobody may change it later.
INSERT INTO jobs_audit (acted_at, actor, move, use_case, tenant_id, after)
VALUES (
    coalesce(%(now)s::timestamptz, clock_timestamp()), %(actor)s, %(move)s, %(use_case)s,
    %(tenant_id)s, %(after)s::text::jsonb
)
RETURNING id;

-- name: cancel_matching
-- cancel_job for a batch. The jobs are asked once more whether they are what was looked for.
WITH chosen AS MATERIALIZED (
    SELECT id FROM jobs
    WHERE id = ANY (%(ids)s::uuid[])
        AND status IN ('pending', 'running')
        AND cancel_requested_at IS NULL
        AND (%(status)s::text IS NULL OR %(status)s::text IN (status, CASE
            WHEN status <> 'pending' THEN status
            WHEN leased_at IS NOT NULL THEN 'leased'
            WHEN due THEN 'waiting'
            ELSE 'scheduled' END))
    ORDER BY id
    FOR UPDATE
),
moved AS (
    UPDATE jobs
    SET status = CASE WHEN status = 'pending' THEN 'cancelled' ELSE status END,
        finished_at = CASE WHEN status = 'pending' THEN clock.now END,
        due = false,
        probe = probe AND status = 'running',
        leased_at = CASE WHEN status = 'pending' THEN NULL ELSE leased_at END,
        lease_expires_at = CASE WHEN status = 'pending' THEN NULL ELSE lease_expires_at END,
        cancel_requested_at = clock.now,
        updated_at = clock.now
    FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
    WHERE id = ANY (ARRAY(SELECT id FROM chosen))
        AND CASE WHEN status IN ('pending', 'running') THEN true END
    RETURNING id AS job_id, tenant_id, use_case, type, queue, attempts, status
)
SELECT * FROM moved;

-- name: requeue_matching
-- requeue_job for a batch: with fresh attempts and a fresh deadline. A dedupe key that an unfinished
-- job holds keeps its job finished, and of several with one key the newest goes.
WITH chosen AS MATERIALIZED (
    SELECT id, tenant_id, dedupe_key FROM jobs
    WHERE id = ANY (%(ids)s::uuid[])
        AND finished_at IS NOT NULL
        AND (%(status)s::text IS NULL OR status = %(status)s::text)
        AND NOT EXISTS (
            SELECT FROM jobs AS twin
            WHERE twin.tenant_id = jobs.tenant_id AND twin.dedupe_key = jobs.dedupe_key
                AND twin.finished_at IS NULL)
    ORDER BY id
    FOR UPDATE OF jobs
),
moved AS (
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
    WHERE id = ANY (ARRAY(
            SELECT DISTINCT ON (tenant_id, coalesce(dedupe_key, id::text), dedupe_key IS NULL) id
            FROM chosen
            ORDER BY tenant_id, coalesce(dedupe_key, id::text), dedupe_key IS NULL, id DESC))
        AND CASE WHEN finished_at IS NOT NULL THEN true END
    RETURNING id AS job_id, tenant_id, use_case, type, queue, attempts, status
)
SELECT * FROM moved;
