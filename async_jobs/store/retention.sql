-- Pruning where it differs by status. Conventions as in jobs.sql.

-- name: prune_by_status
-- Old finished jobs of some statuses, where others are kept longer. Reads on from where it was last
-- time, `most` jobs at a time whatever their status, and says how far it came: the kept ones would
-- otherwise be read again and again. Goes by `ctid`: a job that was requeued since `oldest` saw it has
-- another one, and stays.
WITH oldest AS MATERIALIZED (
    SELECT id, status, finished_at FROM jobs
    WHERE use_case = %(use_case)s
        AND finished_at >= coalesce(%(after)s::timestamptz, '-infinity')
        AND (finished_at, id) > (
            coalesce(%(after)s::timestamptz, '-infinity'),
            coalesce(%(after_id)s::uuid, '00000000-0000-0000-0000-000000000000'))
        AND finished_at < (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()))
            - make_interval(secs => %(retention_seconds)s)
    ORDER BY finished_at, id
    LIMIT %(most)s
),
gone AS (
    DELETE FROM jobs
    WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM jobs
            WHERE id = ANY (ARRAY(
                    SELECT id FROM oldest WHERE status = ANY (%(statuses)s::text[])))
            FOR UPDATE SKIP LOCKED
        ))
    RETURNING id
)
SELECT
    (SELECT count(*) FROM gone) AS jobs,
    (SELECT count(*) FROM oldest) AS seen,
    last.finished_at, last.id
FROM (SELECT) AS one
LEFT JOIN LATERAL (
    SELECT finished_at, id FROM oldest ORDER BY finished_at DESC, id DESC LIMIT 1
) AS last ON true;

-- name: count_old
-- What prune_by_status would see from where it was last time: how many jobs of each status among the
-- next `most`, and how far it came.
WITH oldest AS MATERIALIZED (
    SELECT id, status, finished_at FROM jobs
    WHERE use_case = %(use_case)s
        AND finished_at >= coalesce(%(after)s::timestamptz, '-infinity')
        AND (finished_at, id) > (
            coalesce(%(after)s::timestamptz, '-infinity'),
            coalesce(%(after_id)s::uuid, '00000000-0000-0000-0000-000000000000'))
        AND finished_at < (SELECT coalesce(%(now)s::timestamptz, clock_timestamp()))
            - make_interval(secs => %(retention_seconds)s)
    ORDER BY finished_at, id
    LIMIT %(most)s
)
SELECT
    coalesce((SELECT jsonb_object_agg(status, jobs)
        FROM (SELECT status, count(*) AS jobs FROM oldest GROUP BY status) AS counted), '{}')
        AS by_status,
    (SELECT count(*) FROM oldest) AS seen,
    last.finished_at, last.id
FROM (SELECT) AS one
LEFT JOIN LATERAL (
    SELECT finished_at, id FROM oldest ORDER BY finished_at DESC, id DESC LIMIT 1
) AS last ON true;
