-- online
-- A job that holds a lease leaves the index of lists: a lease then writes one index entry less, and
-- leased jobs are few and found by idx_jobs_in_flight. Only where that takes a moment. A table above
-- 64 MB keeps its index, which serves the same lists, until its operator builds the other one beside
-- it (CHANGELOG.md says how).
IF (SELECT indpred IS NULL FROM pg_index WHERE indexrelid = to_regclass('idx_jobs_tenant_status'))
    AND pg_relation_size(to_regclass('jobs')) < 64 * 1024 * 1024
THEN
DROP INDEX idx_jobs_tenant_status;
-- Lists of one tenant, newest first (ids are in order of time), but for what holds a lease.
CREATE INDEX IF NOT EXISTS idx_jobs_tenant_status
    ON jobs (tenant_id, id) WHERE leased_at IS NULL;
END IF;
