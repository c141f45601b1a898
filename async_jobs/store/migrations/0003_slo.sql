-- online
-- The SLO record: how promises were kept, by use case. One row for each measure and minute (kept
-- for six hours) and each measure and hour (kept for thirty days); a tenant of '' counts everybody.
-- Processes add to the rows of the present every few seconds. Lost rows cost history only.
CREATE TABLE IF NOT EXISTS jobs_slo (
    use_case text NOT NULL,
    tenant_id text NOT NULL,
    measure text NOT NULL,
    span_seconds integer NOT NULL,
    begins_at timestamptz NOT NULL,
    total bigint NOT NULL,
    late bigint NOT NULL,
    sum_seconds double precision NOT NULL,
    buckets bigint[] NOT NULL,
    PRIMARY KEY (use_case, tenant_id, span_seconds, measure, begins_at)
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS idx_slo_age ON jobs_slo (span_seconds, begins_at);
