-- What a use case has to do, for forecasts. Conventions as in jobs.sql.

-- name: read_demand
-- Index ranges, each cut off: the deadlines of waiting jobs that are not late (the first hundred,
-- then every hundredth), what is in flight, what becomes due next, what finished and what arrived
-- last. The newest and the next jobs are those of all use cases, or a quiet one would read far.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
waiting AS (
    SELECT
        extract(epoch FROM deadline_at - clock.now)::float8 AS slack,
        row_number() OVER (ORDER BY deadline_at) AS place
    FROM clock CROSS JOIN LATERAL (
        SELECT deadline_at FROM jobs
        WHERE use_case = %(use_case)s AND due AND deadline_at >= clock.now
        ORDER BY deadline_at
        LIMIT %(most)s
    ) AS timely
),
newest AS (
    SELECT created_at, delay_tolerance, min(created_at) OVER () AS first_at
    FROM (SELECT * FROM jobs ORDER BY id DESC LIMIT %(newest)s) AS newest_of_all
    WHERE use_case = %(use_case)s
),
next AS (
    SELECT use_case, run_at, deadline_at FROM jobs
    WHERE NOT due AND leased_at IS NULL AND finished_at IS NULL
    ORDER BY run_at
    LIMIT %(newest)s
),
done AS (
    SELECT status, run_at, started_at, finished_at FROM jobs
    WHERE use_case = %(use_case)s AND finished_at IS NOT NULL
    ORDER BY finished_at DESC
    LIMIT %(finished)s
)
SELECT
    ARRAY(SELECT slack FROM waiting WHERE place <= 100 OR mod(place, 100) = 0 ORDER BY place)
        AS marks,
    ARRAY(SELECT place FROM waiting WHERE place <= 100 OR mod(place, 100) = 0 ORDER BY place)
        AS places,
    (SELECT max(place) FROM waiting) AS waiting,
    coalesce((SELECT deadline_at FROM jobs
        WHERE use_case = %(use_case)s AND due ORDER BY deadline_at LIMIT 1) < clock.now, false)
        AS any_late,
    (SELECT count(*) FROM jobs WHERE use_case = %(use_case)s AND leased_at IS NOT NULL)
        AS in_flight,
    (SELECT extract(epoch FROM clock.now - run_at)::float8 FROM jobs
        WHERE use_case = %(use_case)s AND due ORDER BY deadline_at LIMIT 1) AS head_waits,
    ARRAY(SELECT ARRAY[extract(epoch FROM run_at - clock.now)::float8,
            extract(epoch FROM deadline_at - clock.now)::float8]
        FROM next WHERE use_case = %(use_case)s) AS scheduled,
    -- The first ones only mark where the time begins: one batch alone is no rate.
    ARRAY(SELECT extract(epoch FROM delay_tolerance)::float8
        FROM newest WHERE created_at > first_at) AS tolerances,
    coalesce((SELECT extract(epoch FROM clock.now - min(created_at))::float8
        FROM newest), 0) AS arriving_seconds,
    ARRAY(SELECT ARRAY[extract(epoch FROM clock.now - run_at)::float8,
            extract(epoch FROM clock.now - started_at)::float8,
            extract(epoch FROM clock.now - finished_at)::float8]
        FROM done WHERE started_at IS NOT NULL AND status <> 'cancelled') AS finished
FROM clock;
