-- What decides when one job starts. Conventions as in jobs.sql; every count is cut off.

-- name: snapshot_job
-- One job and all that stands between it and a worker, at one moment. Times are ages and waits in
-- seconds, because the clock is the database's.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
held AS MATERIALIZED (
    SELECT other.tenant_id, count(*) AS jobs
    FROM jobs AS other
    WHERE other.use_case = (SELECT use_case FROM jobs WHERE id = %(id)s)
        AND other.leased_at IS NOT NULL
    GROUP BY other.tenant_id
),
living AS MATERIALIZED (
    SELECT role, serves FROM jobs_processes, clock
    WHERE seen_at > clock.now - make_interval(secs => %(gone_after_seconds)s)
)
SELECT
    job.id AS job_id, job.tenant_id, job.use_case, job.type, job.queue, job.status, job.due,
    job.attempts, job.max_attempts, job.is_retry, job.enqueue_failed, job.worker,
    job.cancel_requested_at IS NOT NULL AS cancel_requested,
    job.last_error IS NOT NULL AS has_failed,
    extract(epoch FROM job.run_at - clock.now)::float8 AS run_in_seconds,
    extract(epoch FROM job.deadline_at - clock.now)::float8 AS slack_seconds,
    extract(epoch FROM clock.now - job.leased_at)::float8 AS leased_seconds,
    extract(epoch FROM job.lease_expires_at - clock.now)::float8 AS lease_left_seconds,
    extract(epoch FROM clock.now - job.started_at)::float8 AS started_seconds,
    extract(epoch FROM clock.now - job.finished_at)::float8 AS finished_seconds,
    (SELECT coalesce(sum(jobs), 0)::int FROM held) AS in_flight,
    coalesce((SELECT jobs FROM held WHERE held.tenant_id = job.tenant_id), 0)::int
        AS tenant_in_flight,
    ARRAY(SELECT held.tenant_id FROM held ORDER BY jobs DESC, held.tenant_id LIMIT 3)
        AS holders,
    ARRAY(SELECT jobs::int FROM held ORDER BY jobs DESC, held.tenant_id LIMIT 3)
        AS holdings,
    CASE WHEN job.due THEN (
        SELECT count(*) FROM (
            SELECT FROM jobs AS other
            WHERE other.use_case = job.use_case AND other.due
                AND other.deadline_at <= job.deadline_at
                AND (other.deadline_at < job.deadline_at
                    OR (-other.priority, other.id) < (-job.priority, job.id))
            LIMIT %(most)s
        ) AS counted) ELSE 0 END::int AS ahead,
    coalesce((SELECT other.deadline_at FROM jobs AS other
        WHERE other.use_case = job.use_case AND other.due
        ORDER BY other.deadline_at LIMIT 1) < clock.now, false) AS pressure,
    (SELECT capacity FROM jobs_capacities AS lowered
        WHERE lowered.use_case = job.use_case) AS lowered_capacity,
    coalesce((SELECT extract(epoch FROM next_at - clock.now)::float8 FROM jobs_rates AS rate
        WHERE rate.use_case = job.use_case AND rate.tenant_id = job.tenant_id), 0)
        AS rate_ahead_seconds,
    (SELECT extract(epoch FROM clock.now - opened_at)::float8 FROM jobs_breakers AS breaker
        WHERE (breaker.use_case, breaker.tenant_id, breaker.type)
            = (job.use_case, job.tenant_id, job.type)) AS breaker_open_seconds,
    coalesce((SELECT extract(epoch FROM clock.now - probed_at)::float8
        FROM jobs_breakers AS breaker
        WHERE (breaker.use_case, breaker.tenant_id, breaker.type)
            = (job.use_case, job.tenant_id, job.type)), 0) AS breaker_probed_seconds,
    (SELECT count(*) FROM living WHERE role = 'scheduler'
        AND serves -> 'use_cases' ? job.use_case)::int AS schedulers,
    (SELECT count(*) FROM living WHERE role = 'worker'
        AND serves -> 'queues' ? job.queue)::int AS workers_of_queue,
    (SELECT count(*) FROM living WHERE role = 'worker'
        AND serves -> 'queues' ? job.queue AND serves -> 'types' ? job.type)::int
        AS workers_of_type
FROM jobs AS job, clock
WHERE job.id = %(id)s
    AND (%(tenant_id)s::text IS NULL OR job.tenant_id = %(tenant_id)s::text);
