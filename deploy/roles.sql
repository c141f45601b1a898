-- Roles with nothing more than each process needs. Run it once as the owner of the tables, after
-- `async-jobs migrate`, and again after every upgrade; it may be repeated:
--
--     psql "$OWNER_DSN" -v ON_ERROR_STOP=1 -f deploy/roles.sql
--
-- The roles cannot log in. Give them to the users that your processes connect as:
--
--     CREATE ROLE jobs_worker_1 LOGIN PASSWORD '...' IN ROLE async_jobs_worker;
--
--     async_jobs_api         enqueue, read                     may change no job
--     async_jobs_operator    read, cancel, requeue, steer      may make and delete no job
--     async_jobs_scheduler   lease, rescue, end late, prune    may make no job, nor change what one is
--     async_jobs_worker      start, finish, enqueue            may delete no job, nor change what one is
--
-- An API that serves cancel and requeue gets async_jobs_api and async_jobs_operator. What a job is
-- (its id, tenant, type, queue, payload, key) nobody but the owner can change once it is stored.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'async_jobs_api', 'async_jobs_operator', 'async_jobs_scheduler', 'async_jobs_worker'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON jobs, jobs_rates, jobs_endings, jobs_breakers, jobs_capacities, jobs_slo,
    jobs_processes, jobs_overrides, jobs_audit, jobs_grants
    FROM PUBLIC;

GRANT SELECT ON jobs
    TO async_jobs_api, async_jobs_operator, async_jobs_scheduler, async_jobs_worker;
GRANT INSERT ON jobs TO async_jobs_api, async_jobs_worker;
GRANT DELETE ON jobs TO async_jobs_scheduler;

GRANT UPDATE (
    status, due, run_at, deadline_at, is_retry, probe, max_attempts, leased_at, lease_expires_at,
    started_at, finished_at, first_run_at, first_started_at, cancel_requested_at, result, updated_at
) ON jobs TO async_jobs_operator;

GRANT UPDATE (
    status, due, run_at, deadline_at, is_retry, probe, attempts, leased_at, lease_expires_at,
    lease_seq, enqueue_failed, started_at, finished_at, first_run_at, first_started_at, last_error,
    worker, cancel_requested_at, updated_at
) ON jobs TO async_jobs_scheduler;

GRANT UPDATE (
    status, due, run_at, deadline_at, is_retry, probe, attempts, leased_at, lease_expires_at,
    lease_seq, enqueue_failed, started_at, finished_at, first_run_at, first_started_at, last_error,
    worker, cancel_requested_at, result, trace_context, updated_at
) ON jobs TO async_jobs_worker;

-- The control tables hold no jobs: how flows fail, what is held back, how many slots there are.
GRANT SELECT ON jobs_rates, jobs_endings, jobs_breakers, jobs_capacities, jobs_slo,
    jobs_processes, jobs_overrides
    TO async_jobs_api, async_jobs_operator, async_jobs_scheduler, async_jobs_worker;
GRANT INSERT, UPDATE, DELETE ON jobs_rates, jobs_endings, jobs_breakers, jobs_capacities, jobs_slo
    TO async_jobs_scheduler;
GRANT INSERT, UPDATE ON jobs_endings, jobs_breakers, jobs_capacities
    TO async_jobs_worker;
GRANT INSERT, UPDATE, DELETE ON jobs_slo TO async_jobs_worker;

-- Workers ask for leave to claim jobs; only a scheduler gives it.
GRANT SELECT ON jobs_grants TO async_jobs_scheduler, async_jobs_worker;
GRANT UPDATE (capacity, expires_at) ON jobs_grants TO async_jobs_scheduler;
GRANT INSERT (use_case, asked_at), UPDATE (asked_at) ON jobs_grants TO async_jobs_worker;

-- Their statements run with the caller's rights. Everybody may call functions unless the database's
-- owner has ordered otherwise (ALTER DEFAULT PRIVILEGES).
GRANT EXECUTE ON FUNCTION jobs_start, jobs_start_leased, jobs_claim, jobs_finish TO async_jobs_worker;

-- Who is alive, what operators have set instead, and who did what. The audit can only grow.
GRANT INSERT, UPDATE, DELETE ON jobs_processes TO async_jobs_scheduler, async_jobs_worker;
GRANT UPDATE (stop_asked_at) ON jobs_processes TO async_jobs_operator;
GRANT INSERT, UPDATE, DELETE ON jobs_overrides TO async_jobs_operator;
GRANT SELECT, INSERT ON jobs_audit TO async_jobs_operator;
