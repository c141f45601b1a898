"""What to say when PostgreSQL refuses a command a right: what was refused, needed, what to do.

The roles are those that `deploy/roles.sql` makes.
"""

from __future__ import annotations

from collections.abc import Mapping

_REFUSED = "42501"
"""The SQLSTATE insufficient_privilege."""
_DDL = "inline_code_block"
"""Where an error of the schema's one statement comes from, in any language of the server."""

ROLES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("enqueue", "api"), ("api",)),
    **dict.fromkeys(("cancel", "requeue", "pause", "resume", "scale"), ("operator",)),
    **dict.fromkeys(("quota", "stop", "audit", "dashboard"), ("operator",)),
    "prune": ("operator", "scheduler"),
    "scheduler": ("scheduler",),
    "worker": ("worker",),
}
"""What a command needs beyond reading, which each of the four roles may."""
_READING = ("api", "operator")


def refusal(command: str, error: BaseException) -> str | None:
    """A sentence about *error*, if it says that the user of the database may not do *command*."""
    if getattr(error, "sqlstate", None) != _REFUSED:
        return None
    diag = getattr(error, "diag", None)
    said = getattr(diag, "message_primary", None) or "permission denied"
    if _DDL in (getattr(diag, "context", None) or ""):
        needed = (
            "Creating and updating the schema needs the owner of the tables: give ASYNC_JOBS_DB_DSN"
        )
        return f"The database refuses this: {said}. {needed} that user, for this command only."
    roles = [f"async_jobs_{role}" for role in ROLES.get(command, _READING)]
    needed = (" and " if command in ROLES else " or ").join(roles)
    return (
        f"The database refuses this to the user in ASYNC_JOBS_DB_DSN: {said}. It needs the role "
        f"{needed} of deploy/roles.sql: run that as the owner of the tables and grant it to the "
        "user, or give a user who has it."
    )
