-- The SLO record, and what the table `jobs` says about promises right now. Conventions as in
-- jobs.sql.

-- name: add_slo
-- What a process has counted, added to the rows of this minute and of this hour. In the order of
-- the key, so that two processes cannot wait for each other.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
)
INSERT INTO jobs_slo AS known (
    use_case, tenant_id, measure, span_seconds, begins_at, total, late, sum_seconds, buckets
)
SELECT
    told.use_case, told.tenant_id, told.measure, span.seconds,
    date_bin(make_interval(secs => span.seconds), clock.now, timestamptz '2000-01-01 00:00Z'),
    told.total, told.late, told.sum_seconds, told.buckets::bigint[]
FROM clock, unnest(%(spans_seconds)s::int[]) AS span (seconds), unnest(
    %(use_cases)s::text[], %(tenant_ids)s::text[], %(measures)s::text[], %(totals)s::bigint[],
    %(lates)s::bigint[], %(sums_seconds)s::float8[], %(buckets)s::text[]
) AS told (use_case, tenant_id, measure, total, late, sum_seconds, buckets)
ORDER BY told.use_case, told.tenant_id, span.seconds, told.measure
ON CONFLICT (use_case, tenant_id, span_seconds, measure, begins_at) DO UPDATE
SET total = known.total + EXCLUDED.total,
    late = known.late + EXCLUDED.late,
    sum_seconds = known.sum_seconds + EXCLUDED.sum_seconds,
    buckets = ARRAY(
        SELECT coalesce(ours, 0) + coalesce(theirs, 0)
        FROM unnest(known.buckets, EXCLUDED.buckets)
            WITH ORDINALITY AS bucket (ours, theirs, number)
        ORDER BY number
    );

-- name: prune_slo
-- Rows whose time is over, a batch at a time.
WITH old AS (
    SELECT slo.ctid
    FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock,
        unnest(%(spans_seconds)s::int[], %(keeps_seconds)s::float8[]) AS kept (span, seconds),
        LATERAL (
            SELECT ctid FROM jobs_slo
            WHERE span_seconds = kept.span
                AND begins_at < clock.now - make_interval(secs => kept.seconds)
            ORDER BY begins_at
            LIMIT %(most)s
            FOR UPDATE SKIP LOCKED
        ) AS slo
)
DELETE FROM jobs_slo WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING use_case;

-- name: sum_slo
-- Sums by use case, measure and window. A window is summed from rows of one length.
SELECT
    use_case, measure, "window".seconds AS window_seconds,
    sum(total)::bigint AS total, sum(late)::bigint AS late, sum(sum_seconds) AS sum_seconds
FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock,
    unnest(%(windows_seconds)s::int[], %(spans_seconds)s::int[]) AS "window" (seconds, span),
    jobs_slo
WHERE use_case = ANY (%(use_cases)s::text[])
    AND tenant_id = %(tenant_id)s
    AND measure = ANY (%(measures)s::text[])
    AND span_seconds = "window".span
    AND begins_at > clock.now - make_interval(secs => "window".seconds)
GROUP BY use_case, measure, "window".seconds;

-- name: sum_minutes
-- First starts minute by minute, and by how much the late ones were late: what a chart shows.
SELECT
    floor(extract(epoch FROM clock.now - begins_at) / 60)::int AS minutes_ago,
    sum(total) FILTER (WHERE measure = 'start')::bigint AS started,
    sum(late) FILTER (WHERE measure = 'start')::bigint AS late,
    sum(sum_seconds) FILTER (WHERE measure = 'lateness') AS lateness_seconds
FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock, jobs_slo
WHERE use_case = ANY (%(use_cases)s::text[])
    AND tenant_id = ''
    AND measure IN ('start', 'lateness')
    AND span_seconds = 60
    AND begins_at > clock.now - make_interval(mins => %(minutes)s)
GROUP BY 1
ORDER BY 1 DESC;

-- name: sum_histograms
-- The histograms of one window, bucket by bucket.
SELECT
    use_case, measure, sum(total)::bigint AS total, sum(late)::bigint AS late,
    sum(sum_seconds) AS sum_seconds, array_agg(jobs ORDER BY number) AS buckets
FROM (
    SELECT
        use_case, measure, number,
        sum(bucket.jobs)::bigint AS jobs,
        CASE WHEN number = 1 THEN sum(total) END AS total,
        CASE WHEN number = 1 THEN sum(late) END AS late,
        CASE WHEN number = 1 THEN sum(sum_seconds) END AS sum_seconds
    FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock,
        jobs_slo,
        unnest(buckets) WITH ORDINALITY AS bucket (jobs, number)
    WHERE use_case = ANY (%(use_cases)s::text[])
        AND tenant_id = %(tenant_id)s
        AND span_seconds = %(span_seconds)s
        AND begins_at > clock.now - make_interval(secs => %(window_seconds)s)
    GROUP BY use_case, measure, number
) AS summed
GROUP BY use_case, measure;

-- name: sum_tenants
-- The tenants of one use case by broken promises, where the record is kept by tenant.
SELECT tenant_id, sum(total)::bigint AS total, sum(late)::bigint AS late
FROM jobs_slo, (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
WHERE use_case = %(use_case)s
    AND tenant_id <> ''
    AND span_seconds = %(span_seconds)s
    AND measure = 'start'
    AND begins_at > clock.now - make_interval(secs => %(window_seconds)s)
GROUP BY tenant_id
ORDER BY sum(late) DESC, sum(total) DESC, tenant_id
LIMIT %(most)s;

-- name: find_demand
-- Waiting jobs by time to deadline. Every count is an index range that is cut off at `most`.
SELECT use_case, edge.number, edge.until_seconds, waiting.jobs
FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock,
    unnest(%(use_cases)s::text[]) AS known (use_case),
    unnest(%(afters_seconds)s::float8[], %(untils_seconds)s::float8[])
        WITH ORDINALITY AS edge (after_seconds, until_seconds, number)
CROSS JOIN LATERAL (
    SELECT count(*) AS jobs
    FROM (
        SELECT FROM jobs
        WHERE jobs.use_case = known.use_case AND due
            AND deadline_at >= CASE WHEN edge.after_seconds IS NULL THEN '-infinity'
                ELSE clock.now + make_interval(secs => edge.after_seconds) END
            AND deadline_at < CASE WHEN edge.until_seconds IS NULL THEN 'infinity'
                ELSE clock.now + make_interval(secs => edge.until_seconds) END
        LIMIT %(most)s
    ) AS counted
) AS waiting
ORDER BY use_case, edge.number;

-- name: find_pulse
-- For each use case: leases held, how late the most urgent waiting job is (negative: in time) and
-- how long it has been due, and the capacity where backpressure has lowered it.
SELECT
    known.use_case,
    (SELECT count(*) FROM jobs
     WHERE jobs.use_case = known.use_case AND leased_at IS NOT NULL) AS in_flight,
    extract(epoch FROM clock.now - head.deadline_at)::float8 AS lateness_seconds,
    extract(epoch FROM clock.now - head.run_at)::float8 AS due_seconds,
    (SELECT capacity FROM jobs_capacities AS lowered
     WHERE lowered.use_case = known.use_case) AS lowered_capacity
FROM (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now OFFSET 0) AS clock
CROSS JOIN unnest(%(use_cases)s::text[]) AS known (use_case)
LEFT JOIN LATERAL (
    SELECT deadline_at, run_at FROM jobs
    WHERE jobs.use_case = known.use_case AND due
    ORDER BY deadline_at, priority DESC, id LIMIT 1
) AS head ON true;

-- name: count_dead_rows
-- As the server estimates them; nothing of the table is read.
SELECT coalesce(sum(n_dead_tup), 0)::bigint AS dead_rows
FROM pg_stat_user_tables
WHERE relid = to_regclass('jobs');
