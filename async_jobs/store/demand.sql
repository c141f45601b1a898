-- What waits in a use case and how fast it is worked off, for whoever decides about a new job.
-- Bounded reads, each asked at most a few times a second by a process.

-- name: get_pace
-- How long the newest finished jobs ran, how many of them there are, and a lowered capacity.
SELECT
    coalesce(avg(ran_seconds), 0)::float8 AS mean_seconds,
    count(*)::int AS measured,
    (SELECT capacity FROM jobs_capacities WHERE use_case = %(use_case)s) AS capacity
FROM (
    SELECT extract(epoch FROM finished_at - started_at) AS ran_seconds
    FROM jobs
    WHERE use_case = %(use_case)s AND finished_at IS NOT NULL AND started_at IS NOT NULL
    ORDER BY finished_at DESC
    LIMIT %(most)s
) AS runs;

-- name: count_due_before
-- Waiting jobs with a deadline within so many seconds from now.
SELECT count(*)::int
FROM (
    SELECT FROM jobs
    WHERE use_case = %(use_case)s AND due
        AND deadline_at <= (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()))
            + make_interval(secs => %(within_seconds)s)
    ORDER BY deadline_at
    LIMIT %(most)s
) AS before;

-- name: find_tenants
-- Who holds slots of a use case or waits for some, and how many slots. Who waits is a loose index
-- scan that ends after `most`: a few pages for each tenant, whatever waits behind it.
WITH RECURSIVE waiting AS (
    (SELECT tenant_id, 1 AS position FROM jobs
     WHERE use_case = %(use_case)s AND due
     ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT next.tenant_id, waiting.position + 1
    FROM waiting
    CROSS JOIN LATERAL (
        SELECT jobs.tenant_id FROM jobs
        WHERE use_case = %(use_case)s AND due AND jobs.tenant_id > waiting.tenant_id
        ORDER BY jobs.tenant_id LIMIT 1
    ) AS next
    WHERE waiting.position < %(most)s
),
holding AS (
    SELECT tenant_id, count(*) AS held FROM jobs
    WHERE use_case = %(use_case)s AND leased_at IS NOT NULL
    GROUP BY tenant_id
)
SELECT
    tenant_id, coalesce(holding.held, 0) AS held, waiting.tenant_id IS NOT NULL AS waits
FROM waiting FULL JOIN holding USING (tenant_id)
ORDER BY 2 DESC, 1;

-- name: count_due_of_tenant
-- One tenant's waiting jobs with a deadline within so many seconds from now: flow by flow, because
-- the index has their deadlines in order only within a flow.
WITH RECURSIVE flow AS (
    (SELECT type, is_retry, priority, 1 AS position FROM jobs
     WHERE use_case = %(use_case)s AND due AND tenant_id = %(tenant_id)s
     ORDER BY type, is_retry, priority LIMIT 1)
    UNION ALL
    SELECT next.type, next.is_retry, next.priority, flow.position + 1
    FROM flow
    CROSS JOIN LATERAL (
        SELECT jobs.type, jobs.is_retry, jobs.priority FROM jobs
        WHERE use_case = %(use_case)s AND due AND tenant_id = %(tenant_id)s
            AND (jobs.type, jobs.is_retry, jobs.priority)
                > (flow.type, flow.is_retry, flow.priority)
        ORDER BY jobs.type, jobs.is_retry, jobs.priority LIMIT 1
    ) AS next
    WHERE flow.position < 100
)
SELECT count(*)::int
FROM (
    SELECT
    FROM flow
    CROSS JOIN LATERAL (
        SELECT FROM jobs
        WHERE use_case = %(use_case)s AND due AND tenant_id = %(tenant_id)s
            AND jobs.type = flow.type AND jobs.is_retry = flow.is_retry
            AND jobs.priority = flow.priority
            AND deadline_at <= (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()))
                + make_interval(secs => %(within_seconds)s)
        ORDER BY deadline_at
        LIMIT %(most)s
    ) AS before
    LIMIT %(most)s
) AS counted;
