"""What `async-jobs dev` shows when everything is up: where things are and what to try next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from async_jobs.dev.options import DEFAULT_HANDLERS, Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where everything can be found."""

    api_url: str
    dsn: str
    queues: str
    data_dir: Path | None
    token_needed: bool
    log_path: Path | None = None


def banner(options: Options, places: Places, *, seconds: float) -> str:
    """The text, for a terminal of 80 columns."""
    lines = ["", f"  async-jobs dev is up after {seconds:.1f} s", ""]
    lines += [f"  {name:<9} {text}" for name, text in _rows(options, places)]
    lines += ["", *(f"  {line}" for line in _next(options, places)), ""]
    return "\n".join(lines) + "\n"


def _rows(options: Options, places: Places) -> list[tuple[str, str]]:
    token = "token ASYNC_JOBS_ENQUEUE_AUTH_TOKEN" if places.token_needed else "no token needed"
    rows = [
        ("API", f"{places.api_url}/jobs/  ({token})"),
        ("Dashboard", f"{places.api_url}/dashboard/"),
        ("Database", "the given server" if options.database_url else places.dsn),
        ("Queues", places.queues),
        ("Workers", f"{options.workers}, handlers from {options.handlers_module}"),
    ]
    if places.data_dir is not None:
        rows.append(("Data", f"{places.data_dir}  (--fresh throws it away)"))
    if places.log_path is not None:
        rows.append(("Log", str(places.log_path)))
    return rows


def _next(options: Options, places: Places) -> Sequence[str]:
    if options.demo:
        return ("The demo begins. Ctrl-C ends it.",)
    token = ' -H "Authorization: Bearer $ASYNC_JOBS_ENQUEUE_AUTH_TOKEN"' * places.token_needed
    again = [f"  curl{token} '{places.api_url}/jobs/?tenant_id=acme'", "Ctrl-C stops everything."]
    if options.handlers_module != DEFAULT_HANDLERS:
        return ("See the jobs of a tenant:", *again)
    return (
        "Enqueue a first job, then look at it:",
        f"  curl{token} {places.api_url}/jobs/enqueue \\",
        '    -H \'Content-Type: application/json\' -d \'{"tenant_id": "acme",',
        '    "use_case": "notifications", "queue": "notifications",',
        '    "type": "hello", "payload": {"name": "you"}}\'',
        *again,
        "Your own handlers: --handlers yourapp.job_handlers --reload. More: --demo.",
    )
