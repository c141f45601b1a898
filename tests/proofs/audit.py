"""Counts the leases of a use case at every commit that takes, starts or renews one.

A deferred trigger runs inside the commit. It first takes a lock that only these triggers take
and that ends after the commit has become visible, then it counts, with a snapshot from after
the lock. So of all commits that may add a lease, one at a time is between its count and
its end. Commits that give leases back wait for nothing; they only lower the number. Hence:

    sound      the number of leases at such a commit is at most what its trigger has counted,
               and between two of them it only falls: no count above the capacity means that no
               commit was above it
    no alarm   for nothing: a turn counts before it leases, and nobody else adds a lease until
               its commit, so a right scheduler's trigger counts no more than the turn did

The lock makes commits wait, not counts: a scheduler that counts too early is caught all the
same (`test_exact_capacity.py` has one). Leases that ran out and were not rescued yet count too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

INSTALL = """
    CREATE UNLOGGED TABLE audit_log (
        use_case text NOT NULL,
        held integer NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    );

    CREATE FUNCTION audit_leases() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        -- One lock for all use cases: a heartbeat renews leases of several in any order.
        PERFORM pg_advisory_xact_lock(hashtextextended('audit of leases', 0));
        INSERT INTO audit_log (use_case, held)
        SELECT NEW.use_case, count(*)
        FROM jobs
        WHERE use_case = NEW.use_case AND leased_at IS NOT NULL;
        RETURN NULL;
    END $$;

    CREATE CONSTRAINT TRIGGER audit_leases AFTER INSERT OR UPDATE ON jobs
        DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.leased_at IS NOT NULL)
        EXECUTE FUNCTION audit_leases();
"""

_FINDINGS = """
    SELECT use_case, count(*), max(held) FROM audit_log GROUP BY use_case ORDER BY use_case
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was counted in one use case."""

    use_case: str
    counts: int
    most_held: int


def install(conn: psycopg.Connection[Any]) -> None:
    """Audit the table `jobs` of this database from now on."""
    conn.execute(INSTALL)


def findings(conn: psycopg.Connection[Any]) -> list[Finding]:
    """What the audit has counted so far."""
    return [Finding(*row) for row in conn.execute(_FINDINGS).fetchall()]
