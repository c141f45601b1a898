jobs (
    id uuid NOT NULL,
    run_at timestamp with time zone NOT NULL,
    deadline_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    lease_seq bigint NOT NULL DEFAULT 0,
    delay_tolerance interval NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL DEFAULT 3,
    priority smallint NOT NULL DEFAULT 0,
    due boolean NOT NULL,
    is_retry boolean NOT NULL DEFAULT false,
    probe boolean NOT NULL DEFAULT false,
    enqueue_failed boolean NOT NULL DEFAULT false,
    status text NOT NULL DEFAULT 'pending'::text,
    tenant_id text NOT NULL,
    use_case text NOT NULL,
    type text NOT NULL,
    queue text NOT NULL,
    payload jsonb NOT NULL,
    leased_at timestamp with time zone,
    lease_expires_at timestamp with time zone,
    started_at timestamp with time zone,
    worker text,
    finished_at timestamp with time zone,
    first_run_at timestamp with time zone,
    first_started_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    dedupe_key text,
    backoff_policy jsonb,
    last_error jsonb,
    result jsonb,
    trace_context jsonb,
    timeout_seconds double precision,
    CONSTRAINT jobs_attempts_in_range CHECK (((attempts >= 0) AND (attempts <= max_attempts) AND (max_attempts >= 1))),
    CONSTRAINT jobs_deadline_follows_run_at CHECK (((deadline_at = (run_at + delay_tolerance)) AND isfinite(run_at))),
    CONSTRAINT jobs_due_waits CHECK (((NOT due) OR ((status = 'pending'::text) AND (leased_at IS NULL)))),
    CONSTRAINT jobs_finished_at_end CHECK (((finished_at IS NOT NULL) = (status = ANY (ARRAY['succeeded'::text, 'dead'::text, 'cancelled'::text])))),
    CONSTRAINT jobs_finished_holds_none CHECK (((finished_at IS NULL) OR (leased_at IS NULL))),
    CONSTRAINT jobs_lease_whole CHECK (((leased_at IS NULL) = (lease_expires_at IS NULL))),
    CONSTRAINT jobs_payload_is_object CHECK ((jsonb_typeof(payload) = 'object'::text)),
    CONSTRAINT jobs_pkey PRIMARY KEY (id),
    CONSTRAINT jobs_probe_holds_lease CHECK (((NOT probe) OR (leased_at IS NOT NULL))),
    CONSTRAINT jobs_running_holds_lease CHECK (((status <> 'running'::text) OR (leased_at IS NOT NULL))),
    CONSTRAINT jobs_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'running'::text, 'succeeded'::text, 'dead'::text, 'cancelled'::text]))),
    CONSTRAINT jobs_times_readable CHECK (((run_at >= '1900-01-01 00:00:00+00'::timestamp with time zone) AND (deadline_at < '9000-01-01 00:00:00+00'::timestamp with time zone)))
) WITH (
    autovacuum_analyze_scale_factor=0.05,
    autovacuum_vacuum_cost_delay=0,
    autovacuum_vacuum_scale_factor=0.02,
    autovacuum_vacuum_threshold=2000,
    fillfactor=70
);
CREATE UNIQUE INDEX idx_jobs_dedupe_key ON jobs USING btree (tenant_id, dedupe_key) WHERE ((dedupe_key IS NOT NULL) AND (finished_at IS NULL));
CREATE INDEX idx_jobs_in_flight ON jobs USING btree (use_case, tenant_id) WHERE (leased_at IS NOT NULL);
CREATE INDEX idx_jobs_pending_deadline ON jobs USING btree (use_case, deadline_at, priority DESC, id) WHERE due;
CREATE INDEX idx_jobs_scheduled ON jobs USING btree (run_at) WHERE ((NOT due) AND (leased_at IS NULL) AND (finished_at IS NULL));
CREATE INDEX idx_jobs_tenant_deadline ON jobs USING btree (use_case, tenant_id, type, is_retry, priority, deadline_at, id) WHERE due;
CREATE INDEX idx_jobs_tenant_scheduled ON jobs USING btree (tenant_id) WHERE ((NOT due) AND (leased_at IS NULL) AND (finished_at IS NULL));
CREATE INDEX idx_jobs_tenant_status ON jobs USING btree (tenant_id, id) WHERE (leased_at IS NULL);
CREATE INDEX idx_jobs_use_case_status ON jobs USING btree (use_case, finished_at) WHERE (finished_at IS NOT NULL);
CREATE UNIQUE INDEX jobs_pkey ON jobs USING btree (id);
comment: async_jobs schema 8
CREATE OR REPLACE FUNCTION jobs_claim(told_use_cases text[], told_queues text[], most integer, told_worker text, lease_for_seconds double precision, told_now timestamp with time zone)
 RETURNS TABLE(payload text, id uuid, lease_seq bigint, tenant_id text, use_case text, type text, queue text, attempts integer, max_attempts integer, backoff_policy text, run_at timestamp with time zone, deadline_at timestamp with time zone, started_at timestamp with time zone, lease_expires_at timestamp with time zone, first_run_at timestamp with time zone, probe boolean, is_first_start boolean, timeout_seconds double precision, trace_context text, any_granted boolean, some_wait boolean, held integer, capacity integer)
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_sort TO 'off'
 SET jit TO 'off'
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
$function$

CREATE OR REPLACE FUNCTION jobs_finish(told_ids uuid[], told_lease_seqs bigint[], told_statuses text[], told_delays_seconds double precision[], told_attempts_back integer[], told_errors text[], told_results text[], told_traceparents text[], told_now timestamp with time zone)
 RETURNS SETOF uuid
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
 SET enable_nestloop TO 'off'
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
$function$

CREATE OR REPLACE FUNCTION jobs_start(told_ids uuid[], told_lease_seqs bigint[], told_worker text, lease_for_seconds double precision, told_now timestamp with time zone)
 RETURNS SETOF jobs
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
 SET enable_nestloop TO 'off'
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
$function$

CREATE OR REPLACE FUNCTION jobs_start_leased(told_queues text[], most integer, told_worker text, lease_for_seconds double precision, told_now timestamp with time zone)
 RETURNS SETOF jobs
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
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
$function$

