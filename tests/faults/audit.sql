-- The audit: what every commit did to a job, what handlers say, what callers were told.
-- It needs nothing of the code under test but the table `jobs` and `application_name`.

-- name: install
CREATE TABLE audit_moves (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    xid xid NOT NULL DEFAULT pg_current_xact_id()::xid,
    app text NOT NULL DEFAULT current_setting('application_name'),
    job_id uuid NOT NULL,
    tenant_id text NOT NULL,
    use_case text NOT NULL,
    old_status text,
    new_status text NOT NULL,
    old_attempts integer,
    attempts integer NOT NULL,
    max_attempts integer NOT NULL,
    old_seq bigint,
    lease_seq bigint NOT NULL,
    old_expires_at timestamptz,
    expires_at timestamptz,
    run_at timestamptz NOT NULL,
    deadline_at timestamptz NOT NULL,
    priority smallint NOT NULL,
    due boolean NOT NULL,
    is_retry boolean NOT NULL,
    dedupe_key text
);
CREATE TABLE audit_runs (
    job_id uuid, lease_seq bigint, attempt integer, pid integer, event text, at timestamptz,
    type text, queue text
);
CREATE TABLE audit_told (job_id uuid, what text, at timestamptz, dedupe_key text);
-- For how long in all the machine had kept processes waiting for a processor by then.
CREATE TABLE audit_starved (at timestamptz PRIMARY KEY, seconds float8);
CREATE FUNCTION audit_owed(began timestamptz, ended timestamptz) RETURNS interval
LANGUAGE sql STABLE AS $$
    SELECT coalesce(make_interval(secs =>
        (SELECT seconds FROM audit_starved WHERE at >= ended ORDER BY at LIMIT 1)
        - (SELECT seconds FROM audit_starved WHERE at <= began ORDER BY at DESC LIMIT 1)),
        interval '0 s')
$$;

CREATE FUNCTION audit_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_moves (
        job_id, tenant_id, use_case, old_status, new_status, old_attempts, attempts, max_attempts,
        old_seq, lease_seq, old_expires_at, expires_at, run_at, deadline_at, priority, due,
        is_retry, dedupe_key
    ) VALUES (
        NEW.id, NEW.tenant_id, NEW.use_case, OLD.status, NEW.status, OLD.attempts, NEW.attempts,
        NEW.max_attempts, OLD.lease_seq, NEW.lease_seq, OLD.lease_expires_at, NEW.lease_expires_at,
        NEW.run_at, NEW.deadline_at, NEW.priority, NEW.due, NEW.is_retry, NEW.dedupe_key
    );
    RETURN NULL;
END $$;
CREATE TRIGGER audit_move AFTER INSERT OR UPDATE ON jobs
    FOR EACH ROW EXECUTE FUNCTION audit_move();

-- name: gather
-- `cts`: when the commit was made. A commit is stamped before others see it, so a turn that saw a
-- lease given back has a later stamp than what gave it back.
DROP TABLE IF EXISTS facts, runs;
CREATE TABLE facts AS
    SELECT *,
        pg_xact_commit_timestamp(xid) AS cts,
        old_expires_at IS NOT NULL AS was_leased,
        expires_at IS NOT NULL AS is_leased,
        starts_with(app, 'async-jobs-worker:') AS by_worker,
        starts_with(app, 'async-jobs-scheduler:') AS by_scheduler,
        CASE WHEN starts_with(app, 'async-jobs-') THEN split_part(app, ':', 3)::integer END AS pid
    FROM audit_moves;
CREATE INDEX ON facts (job_id, lease_seq);
CREATE TABLE runs AS
    SELECT job_id, lease_seq, pid,
        min(type) AS type,
        min(queue) AS queue,
        count(*) FILTER (WHERE event = 'start') AS starts,
        min(at) FILTER (WHERE event = 'start') AS began_at,
        max(at) FILTER (WHERE event <> 'start') AS ended_at,
        max(event) FILTER (WHERE event <> 'start') AS ending
    FROM audit_runs
    GROUP BY job_id, lease_seq, pid;
CREATE INDEX ON runs (job_id, lease_seq);
ANALYZE facts;
ANALYZE runs;

-- name: I01
-- No acknowledged job is lost.
SELECT job_id FROM audit_told LEFT JOIN jobs ON jobs.id = job_id
WHERE what = 'stored' AND jobs.id IS NULL

-- name: I02
-- Everything has finished.
SELECT id, status, attempts, due, leased_at, run_at FROM jobs WHERE finished_at IS NULL

-- name: I03
-- Only the lifecycle's moves; nothing leaves a finished state.
SELECT job_id, old_status, new_status, app FROM facts
WHERE old_status <> new_status
    AND (old_status, new_status) NOT IN (
        ('pending', 'running'), ('pending', 'cancelled'), ('pending', 'dead'),
        ('running', 'succeeded'), ('running', 'pending'), ('running', 'dead'),
        ('running', 'cancelled'))

-- name: I04
-- A live execution lease is ended only by its holder.
SELECT job_id, lease_seq, app, cts, old_expires_at FROM facts
WHERE old_status = 'running' AND by_scheduler
    AND (NOT is_leased OR lease_seq <> old_seq)
    AND cts < old_expires_at - interval '50 ms'

-- name: I05
-- Every lease has a larger fence than all before it, and the fence never falls.
SELECT job_id, old_seq, lease_seq, app FROM facts
WHERE lease_seq < old_seq OR (is_leased AND NOT was_leased AND lease_seq <= old_seq)

-- name: I06
-- Only the holder of the current fence ends an attempt: its handler ran, in that process.
SELECT facts.job_id, old_seq, new_status, app FROM facts
WHERE old_status = 'running' AND by_worker
    AND new_status <> 'running' AND attempts = old_attempts
    AND NOT EXISTS (
        SELECT FROM runs WHERE runs.job_id = facts.job_id AND runs.lease_seq = facts.old_seq
            AND runs.pid = facts.pid)

-- name: I07
-- Attempts stay in range, grow by one at a start, fall by one when given back, and count starts.
SELECT job_id, 'range' AS why FROM facts WHERE attempts < 0 OR attempts > max_attempts
UNION ALL
SELECT job_id, 'step' FROM facts
WHERE attempts <> old_attempts AND NOT (
    (attempts = old_attempts + 1 AND old_status = 'pending' AND new_status = 'running')
    OR (attempts = old_attempts - 1 AND old_status = 'running' AND new_status <> 'running'
        AND by_worker))
UNION ALL
SELECT job_id, 'more runs than starts' FROM (
    SELECT job_id, count(*) AS entered FROM runs WHERE starts > 0 GROUP BY job_id) AS entered
WHERE entered.entered > (
    SELECT count(*) FROM facts
    WHERE facts.job_id = entered.job_id AND old_status = 'pending' AND new_status = 'running')

-- name: I08
-- At most one start under one lease.
SELECT job_id, lease_seq FROM runs GROUP BY job_id, lease_seq HAVING sum(starts) > 1
UNION ALL
SELECT job_id, lease_seq FROM facts
WHERE old_status = 'pending' AND new_status = 'running'
GROUP BY job_id, lease_seq HAVING count(*) > 1

-- name: I09
-- Two runs of a job overlap only if the first one's lease had run out.
SELECT job_id, lease_seq, began_at, ended_at, next_at FROM (
    SELECT *, lead(began_at) OVER (PARTITION BY job_id ORDER BY began_at) AS next_at FROM runs
    WHERE starts > 0
) AS run
WHERE next_at < coalesce(ended_at, 'infinity')
    AND next_at < (
        SELECT max(expires_at) FROM facts
        WHERE facts.job_id = run.job_id AND facts.lease_seq = run.lease_seq)

-- name: I10
-- No start after the job has finished, and none after a cancel was acknowledged.
SELECT facts.job_id, 'after the end' AS why FROM facts
JOIN facts AS ended ON ended.job_id = facts.job_id
    AND ended.new_status IN ('succeeded', 'dead', 'cancelled')
    AND ended.old_status <> ended.new_status
WHERE facts.old_status = 'pending' AND facts.new_status = 'running' AND facts.cts > ended.cts
UNION ALL
SELECT facts.job_id, 'after its cancel' FROM facts
JOIN audit_told ON audit_told.job_id = facts.job_id AND what = 'cancelled'
WHERE old_status = 'pending' AND new_status = 'running' AND cts > audit_told.at
UNION ALL
SELECT runs.job_id, 'handler under a live lease after the end' FROM runs
JOIN facts AS ended ON ended.job_id = runs.job_id
    AND ended.new_status IN ('succeeded', 'dead', 'cancelled')
    AND ended.old_status <> ended.new_status
WHERE runs.began_at > ended.cts + interval '50 ms'
    AND runs.began_at < (
        SELECT max(expires_at) FROM facts
        WHERE facts.job_id = runs.job_id AND facts.lease_seq = runs.lease_seq)

-- name: I11
-- A job succeeds once, and a run under that lease has ended by itself.
SELECT job_id, 'twice' AS why FROM facts
WHERE new_status = 'succeeded' AND old_status <> 'succeeded'
GROUP BY job_id HAVING count(*) > 1
UNION ALL
SELECT job_id, 'without a run' FROM facts
WHERE new_status = 'succeeded' AND old_status <> 'succeeded'
    AND NOT EXISTS (
        SELECT FROM runs WHERE runs.job_id = facts.job_id AND runs.lease_seq = facts.lease_seq
            AND ending = 'end')

-- name: I12
-- Never more leases in a use case than its capacity, at any commit.
SELECT use_case, cts, held FROM (
    SELECT use_case, cts, sum(delta) OVER (PARTITION BY use_case ORDER BY cts, delta, seq) AS held
    FROM (
        SELECT use_case, cts, seq, is_leased::int - was_leased::int AS delta FROM facts
        WHERE is_leased IS DISTINCT FROM was_leased
    ) AS step
) AS level
WHERE held > (%(capacities)s::jsonb ->> use_case)::int

-- name: I13
-- Of one use case, tenant and type, an earlier deadline is leased first. A sample: hash of the id.
-- A turn that waits for a processor commits later than it looked.
WITH waiting AS (
    SELECT job_id, use_case, tenant_id, is_retry, deadline_at, priority, due, cts AS from_at,
        lead(cts, 1, 'infinity') OVER (PARTITION BY job_id ORDER BY cts, seq) AS until_at
    FROM facts
    WHERE old_status IS NULL OR due OR was_leased OR is_leased OR old_status <> new_status
),
leased AS (
    SELECT * FROM facts
    WHERE is_leased AND NOT was_leased AND NOT is_retry
        AND abs(hashtext(job_id::text)) %% %(every)s = 0
)
SELECT leased.job_id, waiting.job_id AS overtaken, leased.cts FROM leased
JOIN waiting USING (use_case, tenant_id)
JOIN jobs AS mine ON mine.id = leased.job_id
JOIN jobs AS other ON other.id = waiting.job_id AND other.type = mine.type
WHERE waiting.due AND NOT waiting.is_retry
    AND from_at < leased.cts - interval '300 ms' AND until_at > leased.cts + interval '300 ms'
    AND from_at < leased.cts - interval '300 ms'
        - audit_owed(leased.cts - interval '2 s', leased.cts)
    AND until_at > leased.cts + interval '300 ms'
        + audit_owed(leased.cts, leased.cts + interval '2 s')
    AND (waiting.deadline_at, -waiting.priority) < (leased.deadline_at, -leased.priority)

-- name: I14
-- No lease and no start before run_at.
SELECT job_id, run_at, cts FROM facts
WHERE (is_leased AND NOT was_leased OR old_status = 'pending' AND new_status = 'running')
    AND cts < run_at - interval '50 ms'

-- name: I15
-- At most one unfinished job per tenant and dedupe key.
SELECT tenant_id, dedupe_key, cts FROM (
    SELECT tenant_id, dedupe_key, cts,
        sum(delta) OVER (PARTITION BY tenant_id, dedupe_key ORDER BY cts, delta, seq) AS unfinished
    FROM (
        SELECT *, CASE WHEN old_status IS NULL THEN 1
                WHEN old_status <> new_status AND new_status IN ('succeeded', 'dead', 'cancelled')
                THEN -1 ELSE 0 END AS delta
        FROM facts WHERE dedupe_key IS NOT NULL
    ) AS step
) AS level
WHERE unfinished > 1

-- name: I16
-- `enqueue_failed` speaks of the last send only: nothing that ran still shows it.
SELECT id FROM jobs WHERE enqueue_failed AND status IN ('succeeded', 'dead')

-- name: I17
-- Running means a lease and a worker; finished means neither lease nor waiting.
SELECT id, status FROM jobs
WHERE (status = 'running') <> (leased_at IS NOT NULL AND status = 'running' AND worker IS NOT NULL)
    OR (leased_at IS NULL) <> (lease_expires_at IS NULL)
    OR finished_at IS NOT NULL AND (leased_at IS NOT NULL OR due)

-- name: I18
-- The deadline is run_at and the tolerance.
SELECT id FROM jobs WHERE deadline_at <> run_at + delay_tolerance

-- name: I19
-- What a dead worker held is taken back soon after its lease ran out, outages and what the machine
-- owed apart.
SELECT job_id, old_expires_at, cts FROM facts
WHERE old_status = 'running' AND by_scheduler AND NOT is_leased
    AND cts > old_expires_at + make_interval(secs => %(interval_seconds)s + 2)
        + audit_owed(old_expires_at, cts)
    AND NOT EXISTS (
        SELECT FROM unnest(%(outages)s::tstzrange[]) AS outage
        WHERE outage && tstzrange(old_expires_at, cts))

-- name: I20
-- A tenant with a quota never has more unfinished jobs than that.
SELECT tenant_id, cts, unfinished FROM (
    SELECT tenant_id, cts,
        sum(delta) OVER (PARTITION BY tenant_id ORDER BY cts, delta, seq) AS unfinished
    FROM (
        SELECT *, CASE WHEN old_status IS NULL THEN 1
                WHEN old_status <> new_status AND new_status IN ('succeeded', 'dead', 'cancelled')
                THEN -1 ELSE 0 END AS delta
        FROM facts WHERE %(quotas)s::jsonb ? tenant_id
    ) AS step
) AS level
WHERE unfinished > (%(quotas)s::jsonb ->> tenant_id)::int

-- name: I21
-- A handler runs for jobs of its type and of a queue of its worker.
SELECT runs.job_id FROM runs JOIN jobs ON jobs.id = runs.job_id
WHERE runs.type <> jobs.type OR runs.queue <> jobs.queue

-- name: I22
-- A stale or foreign message changes nothing: a worker changes only what it has started itself.
SELECT facts.job_id, old_seq, app FROM facts
WHERE by_worker AND old_status = 'running'
    AND NOT EXISTS (
        SELECT FROM facts AS start
        WHERE start.job_id = facts.job_id AND start.lease_seq = facts.old_seq
            AND start.old_status = 'pending' AND start.new_status = 'running'
            AND start.app = facts.app)

-- name: I23
-- While jobs wait and slots are free, starts do not pause for long, outages and what the machine
-- owed apart.
SELECT from_at, next_at FROM (
    SELECT cts AS from_at, lead(cts) OVER (ORDER BY cts) AS next_at FROM facts
    WHERE old_status = 'pending' AND new_status = 'running'
) AS gap
WHERE next_at > from_at + make_interval(secs => %(gap_seconds)s) + audit_owed(from_at, next_at)
    AND NOT EXISTS (
        SELECT FROM unnest(%(outages)s::tstzrange[]) AS outage
        WHERE outage && tstzrange(from_at, next_at))
    AND EXISTS (
        SELECT FROM (
            SELECT due, cts, lead(cts, 1, 'infinity') OVER (PARTITION BY job_id ORDER BY cts, seq)
                AS until_at
            FROM facts
        ) AS waiting
        WHERE due AND cts <= from_at AND until_at >= next_at)

-- name: I24
-- The second caller with a key was told the first one's job.
SELECT told.job_id FROM audit_told AS told
WHERE dedupe_key IS NOT NULL AND NOT EXISTS (
    SELECT FROM facts WHERE facts.job_id = told.job_id AND facts.dedupe_key = told.dedupe_key)

-- name: I25
-- An error says what a run did, is short, and holds no secret.
SELECT id, 'without a failed run' AS why FROM jobs
WHERE last_error IS NOT NULL AND NOT EXISTS (
    SELECT FROM facts WHERE facts.job_id = jobs.id AND old_status = 'running')
UNION ALL
SELECT id, 'long' FROM jobs WHERE octet_length(last_error::text) > 8192
UNION ALL
SELECT jobs.id, 'secret' FROM jobs, unnest(%(secrets)s::text[]) AS secret
WHERE strpos(last_error::text, secret) > 0

-- name: I26
-- Nobody sits in a transaction, and no more sessions than were configured.
SELECT pid, application_name, state FROM pg_stat_activity
WHERE datname = current_database() AND state LIKE 'idle in transaction%%'
    AND state_change < clock_timestamp() - interval '5 s'
UNION ALL
SELECT NULL, 'sessions', count(*)::text FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
HAVING count(*) > %(most_sessions)s

-- name: figures
SELECT
    (SELECT count(*) FROM jobs) AS jobs,
    (SELECT count(*) FROM jobs WHERE status = 'succeeded') AS succeeded,
    (SELECT count(*) FROM jobs WHERE status = 'dead') AS dead,
    (SELECT count(*) FROM jobs WHERE status = 'cancelled') AS cancelled,
    (SELECT count(*) FROM runs WHERE starts > 0) AS runs,
    (SELECT count(*) FROM facts
     WHERE old_status = 'running' AND by_scheduler AND NOT is_leased) AS rescued,
    (SELECT count(*) FROM (
        SELECT FROM runs WHERE ending = 'end' GROUP BY job_id HAVING count(*) > 1) AS twice
    ) AS doubles,
    (SELECT coalesce(max(extract(epoch FROM cts - old_expires_at)), 0)::float8 FROM facts
     WHERE old_status = 'running' AND by_scheduler AND NOT is_leased
        AND NOT EXISTS (
            SELECT FROM unnest(%(outages)s::tstzrange[]) AS outage
            WHERE outage && tstzrange(old_expires_at, cts))) AS slowest_rescue_seconds
