-- online
-- The one table. Fixed-width columns first: fewer padding bytes in every row.
-- `due` and `leased_at` are what the scheduler's indexes look at; status is in no
-- index, so that a start and a heartbeat stay inside their page (HOT) and write no index.
CREATE TABLE IF NOT EXISTS jobs (
    id uuid PRIMARY KEY,
    run_at timestamptz NOT NULL,
    deadline_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_seq bigint NOT NULL DEFAULT 0,
    delay_tolerance interval NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL DEFAULT 3,
    priority smallint NOT NULL DEFAULT 0,
    due boolean NOT NULL,
    is_retry boolean NOT NULL DEFAULT false,
    probe boolean NOT NULL DEFAULT false,
    enqueue_failed boolean NOT NULL DEFAULT false,
    status text NOT NULL DEFAULT 'pending',
    tenant_id text NOT NULL,
    use_case text NOT NULL,
    type text NOT NULL,
    queue text NOT NULL,
    payload jsonb NOT NULL,
    leased_at timestamptz,
    lease_expires_at timestamptz,
    started_at timestamptz,
    worker text,
    finished_at timestamptz,
    first_run_at timestamptz,
    first_started_at timestamptz,
    cancel_requested_at timestamptz,
    dedupe_key text,
    backoff_policy jsonb,
    last_error jsonb,
    result jsonb,
    trace_context jsonb,
    CONSTRAINT jobs_status_known
        CHECK (status IN ('pending', 'running', 'succeeded', 'dead', 'cancelled')),
    CONSTRAINT jobs_running_holds_lease
        CHECK (status <> 'running' OR leased_at IS NOT NULL),
    CONSTRAINT jobs_lease_whole
        CHECK ((leased_at IS NULL) = (lease_expires_at IS NULL)),
    CONSTRAINT jobs_finished_holds_none
        CHECK (finished_at IS NULL OR leased_at IS NULL),
    CONSTRAINT jobs_finished_at_end
        CHECK ((finished_at IS NOT NULL) = (status IN ('succeeded', 'dead', 'cancelled'))),
    CONSTRAINT jobs_due_waits
        CHECK (NOT due OR (status = 'pending' AND leased_at IS NULL)),
    CONSTRAINT jobs_probe_holds_lease
        CHECK (NOT probe OR leased_at IS NOT NULL),
    CONSTRAINT jobs_attempts_in_range
        CHECK (attempts >= 0 AND attempts <= max_attempts AND max_attempts >= 1),
    CONSTRAINT jobs_deadline_follows_run_at
        CHECK (deadline_at = run_at + delay_tolerance AND isfinite(run_at)),
    -- Far from where a client's calendar ends: one row nobody can read would stop a scheduler.
    CONSTRAINT jobs_times_readable
        CHECK (run_at >= '1900-01-01 00:00:00Z' AND deadline_at < '9000-01-01 00:00:00Z'),
    CONSTRAINT jobs_payload_is_object
        CHECK (jsonb_typeof(payload) = 'object')
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.05
);

-- The scheduler's order: most urgent first. Rows leave it when they are leased.
CREATE INDEX IF NOT EXISTS idx_jobs_pending_deadline
    ON jobs (use_case, deadline_at, priority DESC, id) WHERE due;
-- The same order inside one flow, flow after flow: what the fair share looks at. All ascending, so
-- that one row comparison finds the next flow.
CREATE INDEX IF NOT EXISTS idx_jobs_tenant_deadline
    ON jobs (use_case, tenant_id, type, is_retry, priority, deadline_at, id) WHERE due;
-- Occupancy, exact and derived: what holds a lease, by use case and tenant.
CREATE INDEX IF NOT EXISTS idx_jobs_in_flight
    ON jobs (use_case, tenant_id) WHERE leased_at IS NOT NULL;
-- What becomes due next.
CREATE INDEX IF NOT EXISTS idx_jobs_scheduled
    ON jobs (run_at) WHERE NOT due AND leased_at IS NULL AND finished_at IS NULL;
-- How much of a tenant lies in the future: part of its quota.
CREATE INDEX IF NOT EXISTS idx_jobs_tenant_scheduled
    ON jobs (tenant_id) WHERE NOT due AND leased_at IS NULL AND finished_at IS NULL;
-- Lists of one tenant, newest first (ids are in order of time).
CREATE INDEX IF NOT EXISTS idx_jobs_tenant_status
    ON jobs (tenant_id, id);
-- Finished jobs of one use case by age: lists, figures, pruning.
CREATE INDEX IF NOT EXISTS idx_jobs_use_case_status
    ON jobs (use_case, finished_at) WHERE finished_at IS NOT NULL;
-- One unfinished job per tenant and key; a retried or rescued job keeps its place.
CREATE UNIQUE INDEX IF NOT EXISTS idx_jobs_dedupe_key
    ON jobs (tenant_id, dedupe_key) WHERE dedupe_key IS NOT NULL AND finished_at IS NULL;
