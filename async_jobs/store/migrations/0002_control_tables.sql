-- online
-- What schedulers and workers agree on under overload. Small, and true for minutes only: lost rows
-- cost a burst too many, or a breaker that opens and a capacity that falls once more. Every job is
-- a row of `jobs`; nothing here knows one.

-- When a tenant's next job would go if all went evenly. A row only for tenants with a rate.
CREATE TABLE IF NOT EXISTS jobs_rates (
    use_case text NOT NULL,
    tenant_id text NOT NULL,
    next_at timestamptz NOT NULL,
    PRIMARY KEY (use_case, tenant_id)
) WITH (fillfactor = 50);

-- What workers counted of flows that fail, in steps of ten seconds.
CREATE TABLE IF NOT EXISTS jobs_endings (
    use_case text NOT NULL,
    tenant_id text NOT NULL,
    type text NOT NULL,
    step bigint NOT NULL,
    first_at timestamptz NOT NULL,
    ended integer NOT NULL,
    failed integer NOT NULL,
    PRIMARY KEY (use_case, tenant_id, type, step)
) WITH (fillfactor = 50);

-- The open circuit breakers.
CREATE TABLE IF NOT EXISTS jobs_breakers (
    use_case text NOT NULL,
    tenant_id text NOT NULL,
    type text NOT NULL,
    opened_at timestamptz NOT NULL,
    probed_at timestamptz NOT NULL,
    probe_succeeded boolean NOT NULL DEFAULT false,
    PRIMARY KEY (use_case, tenant_id, type)
) WITH (fillfactor = 50);

-- Capacities that backpressure has lowered.
CREATE TABLE IF NOT EXISTS jobs_capacities (
    use_case text PRIMARY KEY,
    capacity integer,
    told_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL
) WITH (fillfactor = 50);
