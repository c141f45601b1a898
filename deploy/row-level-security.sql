-- Row-level security: a role whose transactions see one tenant's jobs, that of app.tenant_id.
-- For applications that share the database with the jobs and serve one tenant at a time.
-- Run it as the owner of the tables, after deploy/roles.sql; it may be repeated.
--
-- In each transaction: SELECT set_config('app.tenant_id', ..., true), that is SET LOCAL. A plain SET
-- would outlive the transaction and reach the next user of the connection. Without it the role
-- sees nothing and stores nothing.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'async_jobs_tenant') THEN
        CREATE ROLE async_jobs_tenant NOLOGIN;
    END IF;
END
$$;

GRANT SELECT, INSERT ON jobs TO async_jobs_tenant;
GRANT SELECT ON jobs_capacities TO async_jobs_tenant;

ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS async_jobs_of_one_tenant ON jobs;
CREATE POLICY async_jobs_of_one_tenant ON jobs TO async_jobs_tenant
    USING (tenant_id = current_setting('app.tenant_id', true))
    WITH CHECK (tenant_id = current_setting('app.tenant_id', true));

-- The processes see every tenant's jobs, as before.
DROP POLICY IF EXISTS async_jobs_of_every_tenant ON jobs;
CREATE POLICY async_jobs_of_every_tenant ON jobs
    TO async_jobs_api, async_jobs_operator, async_jobs_scheduler, async_jobs_worker
    USING (true) WITH CHECK (true);
