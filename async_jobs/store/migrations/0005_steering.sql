-- online
-- Who is alive, what operators have changed, and who did what. Small; no job depends on them.

-- One row for each scheduler and worker. It writes its own every few seconds; a row that is no
-- longer written is a process that is gone.
CREATE TABLE IF NOT EXISTS jobs_processes (
    name text PRIMARY KEY,
    role text NOT NULL,
    version text NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    serves jsonb NOT NULL,
    stop_asked_at timestamptz
) WITH (fillfactor = 50);

-- What operators set instead of what the environment says, until they take it back. Of a use case
-- (tenant_id '') or of a tenant (use_case '').
CREATE TABLE IF NOT EXISTS jobs_overrides (
    use_case text NOT NULL,
    tenant_id text NOT NULL,
    setting text NOT NULL,
    value jsonb NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL,
    PRIMARY KEY (use_case, tenant_id, setting)
);

-- Who did what, and what was there before.
CREATE TABLE IF NOT EXISTS jobs_audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    acted_at timestamptz NOT NULL,
    actor text NOT NULL,
    move text NOT NULL,
    use_case text NOT NULL,
    tenant_id text NOT NULL,
    job_id uuid,
    before jsonb,
    after jsonb
);
