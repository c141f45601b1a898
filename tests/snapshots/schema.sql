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
comment: async_jobs schema 7
