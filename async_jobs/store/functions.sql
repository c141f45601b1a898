-- Moves as functions: planned once in a session, however they are called. As in jobs.sql.
--
-- A statement that is sent is parsed and planned anew, or, if it was prepared, planned anew all the
-- same while the planner takes the values at hand for cheaper than any values. For a batch of one that
-- is more than the move itself costs. A function's statements are planned once for any values. That may
-- be while the table is empty, so what a function sets, and the condition on `id` beside the join,
-- leave no plan that goes through the whole table or a whole index. Each statement of a function has
-- a snapshot of its own in READ COMMITTED, so that a claim counts after its lock, in one round trip.
--
-- `async-jobs migrate` replaces them all. Processes one version older call them, too: a function that
-- needs other arguments or columns gets another name, and the old one stays.

-- name: jobs_start
-- The only door into running. A second delivery of the same message finds it shut.
-- A ticket without lease_seq (a bare id) is taken for the lease the job has now.
CREATE OR REPLACE FUNCTION jobs_start(
    told_ids uuid[], told_lease_seqs bigint[], told_worker text, lease_for_seconds float8,
    told_now timestamptz
)
RETURNS SETOF jobs
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_nestloop = off
AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    UPDATE jobs
    SET status = 'running',
        attempts = attempts + 1,
        started_at = coalesce(told_now, clock_timestamp()),
        first_started_at = coalesce(first_started_at, told_now, clock_timestamp()),
        lease_expires_at = coalesce(told_now, clock_timestamp())
            + make_interval(secs => lease_for_seconds),
        worker = told_worker,
        updated_at = coalesce(told_now, clock_timestamp())
    FROM unnest(told_ids, told_lease_seqs) AS ticket (id, lease_seq)
    WHERE jobs.id = ANY (told_ids)
        AND jobs.id = ticket.id
        AND jobs.lease_seq = coalesce(ticket.lease_seq, jobs.lease_seq)
        AND CASE WHEN status = 'pending' AND leased_at IS NOT NULL
            AND lease_expires_at > coalesce(told_now, clock_timestamp())
            AND attempts < max_attempts THEN true END
    RETURNING jobs.*;
END
$function$;

-- name: jobs_start_leased
-- PostgreSQL as the transport: pick leased jobs of these queues and start them in one step.
-- The inner query reads what is in flight, which capacity bounds, never the backlog.
CREATE OR REPLACE FUNCTION jobs_start_leased(
    told_queues text[], most integer, told_worker text, lease_for_seconds float8,
    told_now timestamptz
)
RETURNS SETOF jobs
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    UPDATE jobs
    SET status = 'running',
        attempts = attempts + 1,
        started_at = coalesce(told_now, clock_timestamp()),
        first_started_at = coalesce(first_started_at, told_now, clock_timestamp()),
        lease_expires_at = coalesce(told_now, clock_timestamp())
            + make_interval(secs => lease_for_seconds),
        worker = told_worker,
        updated_at = coalesce(told_now, clock_timestamp())
    WHERE id = ANY (ARRAY(
            SELECT id FROM jobs
            WHERE leased_at IS NOT NULL
                AND status = 'pending'
                AND queue = ANY (told_queues)
                AND lease_expires_at > coalesce(told_now, clock_timestamp())
                AND attempts < max_attempts
            ORDER BY deadline_at, priority DESC, id
            LIMIT most
            FOR UPDATE SKIP LOCKED
        ))
    RETURNING jobs.*;
END
$function$;

-- name: jobs_finish
-- Succeed, retry, snooze, bury, cancel and release of running jobs are one statement.
-- The fence is in the join: who no longer holds the lease writes nothing.
-- A job whose cancel was asked for never goes back to pending.
-- A column that is NULL as a whole says: succeeded, no error, no result, as nearly always.
-- The next attempt of a traced job links to this one, as far as it has a `traceparent`.
-- delay_seconds NULL leaves run_at, and so the deadline, where it was (release).
CREATE OR REPLACE FUNCTION jobs_finish(
    told_ids uuid[], told_lease_seqs bigint[], told_statuses text[], told_delays_seconds float8[],
    told_attempts_back integer[], told_errors text[], told_results text[], told_traceparents text[],
    told_now timestamptz
)
RETURNS SETOF uuid
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_nestloop = off
AS $function$
#variable_conflict use_column
DECLARE
    ended_at timestamptz := coalesce(told_now, clock_timestamp());
BEGIN
    RETURN QUERY
    UPDATE jobs
    SET status = CASE WHEN outcome.status = 'pending' AND cancel_requested_at IS NOT NULL
            THEN 'cancelled' ELSE outcome.status END,
        finished_at = CASE WHEN outcome.status <> 'pending' OR cancel_requested_at IS NOT NULL
            THEN ended_at END,
        due = outcome.status = 'pending' AND cancel_requested_at IS NULL
            AND coalesce(outcome.delay_seconds, 0) <= 0,
        attempts = attempts - outcome.attempts_back,
        is_retry = is_retry OR outcome.status = 'pending' AND outcome.attempts_back = 0,
        probe = false,
        run_at = coalesce(outcome.run_at, jobs.run_at),
        deadline_at = coalesce(outcome.run_at, jobs.run_at) + delay_tolerance,
        first_run_at = CASE WHEN outcome.run_at IS NOT NULL
            THEN coalesce(first_run_at, jobs.run_at) ELSE first_run_at END,
        leased_at = NULL,
        lease_expires_at = NULL,
        last_error = coalesce(outcome.error::jsonb, last_error),
        trace_context = CASE WHEN outcome.traceparent IS NULL THEN trace_context
            ELSE trace_context || jsonb_build_object('previous', outcome.traceparent) END,
        result = outcome.result::jsonb,
        updated_at = ended_at
    FROM (
        SELECT id, lease_seq, delay_seconds, error, result, traceparent,
            coalesce(status, 'succeeded') AS status, coalesce(attempts_back, 0) AS attempts_back,
            CASE WHEN status = 'pending'
                THEN ended_at + make_interval(secs => delay_seconds) END AS run_at
        FROM unnest(
            told_ids, told_lease_seqs, told_statuses, told_delays_seconds, told_attempts_back,
            told_errors, told_results, told_traceparents
        ) AS told (id, lease_seq, status, delay_seconds, attempts_back, error, result, traceparent)
    ) AS outcome
    WHERE jobs.id = ANY (told_ids)
        AND jobs.id = outcome.id
        AND jobs.lease_seq = outcome.lease_seq
        AND CASE WHEN jobs.status = 'running' THEN true END
    RETURNING jobs.id;
END
$function$;

-- name: jobs_claim
-- Lease and start as one version of the row, in a turn of the one use case that comes next by its most
-- urgent job, as lock_use_case takes it. No leave for it, or a job that is late: its jobs come by leases
-- alone. The first row says whether there is any leave and whether any job waits, both reasons to try
-- again soon, and in a turn how many were in flight and how many may be; the others are jobs.
CREATE OR REPLACE FUNCTION jobs_claim(
    told_use_cases text[], told_queues text[], most integer, told_worker text,
    lease_for_seconds float8, told_now timestamptz
)
RETURNS TABLE (
    payload text, id uuid, lease_seq bigint, tenant_id text, use_case text, type text, queue text,
    attempts integer, max_attempts integer, backoff_policy text, run_at timestamptz,
    deadline_at timestamptz, started_at timestamptz, lease_expires_at timestamptz,
    first_run_at timestamptz, probe boolean, is_first_start boolean, timeout_seconds float8,
    trace_context text, any_granted boolean, some_wait boolean, held integer, capacity integer
)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_sort = off
SET jit = off
AS $function$
#variable_conflict use_column
DECLARE
    chosen text;
    is_timely boolean;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'a claim counts what was committed a moment ago' USING ERRCODE = 'active_sql_transaction';
    END IF;

    SELECT served.use_case, head.deadline_at >= coalesce(told_now, clock_timestamp())
    INTO chosen, is_timely
    FROM unnest(told_use_cases) AS served (use_case)
    CROSS JOIN LATERAL (
        SELECT deadline_at FROM jobs
        WHERE jobs.use_case = served.use_case AND due
        ORDER BY deadline_at LIMIT 1
    ) AS head
    ORDER BY head.deadline_at
    LIMIT 1;

    SELECT count(*) > 0, max(jobs_grants.capacity) FILTER (WHERE jobs_grants.use_case = chosen)
    INTO any_granted, capacity
    FROM jobs_grants
    WHERE jobs_grants.use_case = ANY (told_use_cases) AND expires_at > clock_timestamp();

    some_wait := chosen IS NOT NULL;
    IF is_timely AND capacity IS NOT NULL AND pg_try_advisory_xact_lock(
        hashtextextended('async_jobs dispatch ' || chosen, 0))
    THEN
        SELECT count(*) INTO held FROM jobs
        WHERE jobs.use_case = chosen AND leased_at IS NOT NULL;
    END IF;
    RETURN NEXT;
    IF held < capacity THEN
        RETURN QUERY
        UPDATE jobs
        SET due = false,
            status = 'running',
            lease_seq = lease_seq + 1,
            attempts = attempts + 1,
            leased_at = coalesce(told_now, clock_timestamp()),
            started_at = coalesce(told_now, clock_timestamp()),
            first_started_at = coalesce(first_started_at, told_now, clock_timestamp()),
            lease_expires_at = coalesce(told_now, clock_timestamp())
                + make_interval(secs => lease_for_seconds),
            enqueue_failed = false,
            worker = told_worker,
            updated_at = coalesce(told_now, clock_timestamp())
        WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM jobs
                WHERE use_case = chosen AND due
                ORDER BY deadline_at, priority DESC, id
                LIMIT least(most, capacity - held)
                FOR UPDATE SKIP LOCKED
            ))
            AND attempts < max_attempts
            AND queue = ANY (told_queues)
        RETURNING
            payload::text, id, lease_seq, tenant_id, use_case, type, queue, attempts, max_attempts,
            backoff_policy::text, run_at, deadline_at, started_at, lease_expires_at,
            CASE WHEN first_run_at BETWEEN '1900-01-01 00:00Z' AND '9000-01-01 00:00Z'
                THEN first_run_at END,
            probe, attempts = 1 AND first_started_at >= started_at, timeout_seconds,
            CASE WHEN trace_context IS NOT NULL THEN jsonb_build_object(
                'traceparent', trace_context ->> 'traceparent',
                'tracestate', trace_context ->> 'tracestate',
                'previous', trace_context ->> 'previous')::text END,
            NULL::boolean, NULL::boolean, NULL::integer, NULL::integer;
    END IF;
END
$function$;
