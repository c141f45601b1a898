-- Claims: workers lease and start waiting jobs in one step, by a scheduler's leave. As in jobs.sql.

-- name: ask_for_grant
-- A busy worker would claim jobs itself. Worth a write only when the last one is growing old.
INSERT INTO jobs_grants (use_case, asked_at)
SELECT use_case, clock_timestamp() FROM unnest(%(use_cases)s::text[]) AS asked (use_case)
ON CONFLICT (use_case) DO UPDATE SET asked_at = clock_timestamp()
WHERE jobs_grants.asked_at < clock_timestamp() - make_interval(secs => %(old_seconds)s);

-- name: grant_claims
-- Until it expires, workers that have the turn may claim up to this capacity. Runs under
-- lock_use_case.
UPDATE jobs_grants
SET capacity = %(capacity)s,
    expires_at = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE use_case = %(use_case)s;

-- name: claim_due
-- See functions.sql.
SELECT * FROM jobs_claim(
    %(use_cases)s::text[], %(queues)s::text[], %(slots)s::int, %(worker)s::text,
    %(lease_seconds)s::float8, %(now)s::timestamptz);
