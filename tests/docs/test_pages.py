"""What the documentation says is so: names, numbers, links, and the parts printed from the code."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from doc_pages import ROOT, name, pages, prose
from sql_mutants import EQUIVALENT, mutants

from async_jobs.cli.main import COMMANDS
from async_jobs.config import AsyncJobsConfig

import generate  # isort: skip # docs/generate.py; doc_pages made it importable

LINE_COUNT_TOLERANCE = 0.1
OTHER_VARIABLES = {"ASYNC_JOBS_REPORTS_MAX_CONCURRENT"}

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|sql|toml|yml|json|md))`")
_WALK = re.compile(r"`((?:[A-Z]\w+\.)?\w+)`")


@pytest.mark.parametrize("page", pages(), ids=name)
def test_generated_parts_are_fresh(page: Path) -> None:
    text = page.read_text("utf-8")

    assert text == generate.refreshed(text), "Run: python docs/generate.py"


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [
        link
        for link in _LINK.findall(prose(page))
        if not link.startswith(("https://", "mailto:")) and not _leads_somewhere(page, link)
    ]

    assert broken == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    homes = (ROOT, ROOT / "async_jobs", ROOT / "examples", page.parent)
    missing = [
        path
        for path in _PATH.findall(prose(page))
        if "/" in path.rstrip("/") or path.endswith("/")
        if not path.startswith(("myapp/", "jobs/"))
        if not any((home / path).exists() for home in homes)
    ]

    assert missing == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_variables_that_are_named_exist(page: Path) -> None:
    described = {each.name for each in AsyncJobsConfig(db_dsn="postgresql://x").describe()}
    named = set(re.findall(r"\bASYNC_JOBS_[A-Z_]*[A-Z]\b(?!<|_)", page.read_text("utf-8")))

    assert named - described - OTHER_VARIABLES == set()


def test_every_variable_is_documented() -> None:
    page = (ROOT / "docs/reference/environment.md").read_text("utf-8")
    described = AsyncJobsConfig(db_dsn="postgresql://x").describe()

    assert [each.name for each in described if f"`{each.name}`" not in page] == []


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text("utf-8")
    commands = [*(f"async-jobs {each}" for each in COMMANDS), *_console_scripts()]

    assert [each for each in commands if f"## `{each}`" not in page] == []


def test_every_event_is_documented() -> None:
    page = (ROOT / "docs/reference/events.md").read_text("utf-8")

    assert [each for each in generate.event_classes() if f"`{each.__name__}`" not in page] == []


@pytest.mark.parametrize("page", ["README.md", "docs/reference/schema.md"])
def test_every_column_and_index_of_the_table_is_documented(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    table, _, rest = (ROOT / "tests/snapshots/schema.sql").read_text("utf-8").partition(") WITH (")
    columns = re.findall(r"^    ([a-z_]+) [a-z]", table, re.MULTILINE)
    indexes = re.findall(r"^CREATE (?:UNIQUE )?INDEX (idx_jobs_\w+) ON jobs ", rest, re.MULTILINE)

    assert len(columns) > 30
    assert len(indexes) > 6
    assert [each for each in columns + indexes if f"| `{each}` " not in text] == []


def test_the_reading_order_tells_the_length_of_its_files() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    told = re.findall(r"^\| `(async_jobs/\S+)` \| (\d+) \|", text, re.MULTILINE)
    wrong = {
        path: lines
        for path, count in told
        if abs(int(count) - (lines := _lines(path))) > LINE_COUNT_TOLERANCE * lines
    }

    assert told
    assert wrong == {}


def test_every_stop_of_the_walk_is_in_its_file() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    stops = re.findall(r"^\| \d+ [^|]+\| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    missing = [
        (stop, named)
        for stop, files in stops
        for named in _WALK.findall(stop)
        if not any(_is_in(file, named) for file in re.findall(r"`([^`]+)`", files))
    ]

    assert len(stops) >= 10
    assert missing == []


def test_nothing_promises_that_a_job_runs_once_only() -> None:
    phrase = "exactly" + " once"
    sources = [*pages(), *(ROOT / "async_jobs").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]

    assert [name(one) for one in sources if phrase in one.read_text("utf-8").lower()] == []


def test_every_sentence_of_the_promise_names_an_invariant_and_tests_that_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.partition("## The promise\n")[2].partition("\n## ")[0]
    rows = re.findall(
        r"^\| ([A-Z][^|]+) \| \[(I\d\d)\]\(([^)]+)\) \| ([^|]+) \|$", section, re.MULTILINE
    )
    missing = [
        (sentence, test)
        for sentence, _, _, guards in rows
        for path, test in re.findall(r"\[`?([^\]`]+)`?\]\(([^)]+)\)", guards) or [("", "no test")]
        if not (ROOT / test).is_file() or f"def {path}" not in (ROOT / test).read_text("utf-8")
    ]

    unknown = [
        invariant
        for _, invariant, queries, _ in rows
        if f"-- name: {invariant}\n" not in (ROOT / queries).read_text("utf-8")
    ]

    assert len(rows) == section.count("\n| ") - 1
    assert (missing, unknown) == ([], [])


def test_every_planted_bug_is_listed() -> None:
    page = (ROOT / "docs/explanation/guarantees.md").read_text("utf-8")
    source = (ROOT / "tests/store/planted_bugs.py").read_text("utf-8")
    names = re.findall(r'Bug\(\s*"([^"]+)"', source)

    assert len(names) >= 6
    assert [name for name in names if f"- {name}" not in page] == []


def test_the_page_says_how_many_guards_were_taken_out() -> None:
    """Who adds a statement runs `scripts/mutate-sql` on it and states the new figure."""
    page = (ROOT / "docs/explanation/guarantees.md").read_text("utf-8")
    names = {mutant.statement for mutant in mutants()}
    told = [mutant for mutant in mutants() if not mutant.reason]

    figure = f"{len(told)} of {len(mutants())} changes to {len(names)} statements"
    assert figure in page


def test_each_guard_that_needs_no_test_exists() -> None:
    changes = {(mutant.statement, mutant.change) for mutant in mutants()}

    assert set(EQUIVALENT) - changes == set()


def test_each_decision_has_a_number_of_its_own() -> None:
    numbers = [int(page.name[:3]) for page in sorted(ROOT.glob("docs/decisions/*.md"))]

    assert numbers == list(range(1, len(numbers) + 1))


def test_the_licence_and_support_lines_are_those_of_the_description() -> None:
    text = (ROOT / "README.md").read_text("utf-8")

    assert text.endswith(
        "## License\n\nProprietary - Internal use only\n\n"
        "## Support\n\nFor issues or questions, contact the infrastructure team.\n"
    )


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.is_file() and (not anchor or anchor in _anchors(target))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def _lines(path: str) -> int:
    return len((ROOT / path).read_text("utf-8").splitlines())


def _is_in(file: str, named: str) -> bool:
    """Whether the file, or a module it names, defines *named*, which may be `Class.method`."""
    path = ROOT / "async_jobs" / file
    if path.suffix == ".sql":
        return f"-- name: {named}\n" in path.read_text("utf-8")
    module = import_module("async_jobs." + file.removesuffix(".py").replace("/", "."))
    cls, _, member = named.rpartition(".")
    if cls:
        return hasattr(getattr(module, cls, None), member)
    return hasattr(module, named) or f'"{named}"' in inspect.getsource(module)


def _console_scripts() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    section = text.partition("[project.scripts]")[2].partition("\n[")[0]
    return [each for each in re.findall(r"^([\w-]+) =", section, re.MULTILINE) if "-jobs-" in each]
