"""The dashboard in a real browser: every page, role and action, hostile texts, the keyboard.

`BROWSER_LENGTH=long` opens every page with every hostile text in every parameter; CI opens each
text and each parameter once. What needs no browser is tested in tests/dashboard.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import psycopg
import pytest
from hostile_texts import HOSTILE
from jobs_to_look_at import fill, store_everywhere
from moving_parts import EMPTY_ALL_TABLES

from async_jobs.core.filters import LONGEST_TEXT
from async_jobs.dashboard.actions import ACTIONS

from .browser import PAGES, ROLES, Visitor, opened_browser, served
from .pictures import PHONE, SHOP, WAITING, pictures

MOST_PICTURE_BYTES = 150_000
IS_LONG = os.environ.get("BROWSER_LENGTH") == "long"
PARAMETERS = [
    *("tenant_id", "use_case", "status", "type", "error", "dedupe_key", "late", "failed", "done"),
    *("enqueued_from", "enqueued_until", "run_from", "run_until", "cursor", "before_id", "move"),
]
WORKER = """
    INSERT INTO jobs_processes (name, role, version, started_at, seen_at, serves) VALUES
        ('worker-1', 'worker', '1.0', now() - interval '3 hours', now(), '{"queues":
            ["notifications"], "types": ["welcome"], "running": 3, "concurrency": 10}')
"""
PRESS = """async ([names, job]) => {
    const form = document.querySelector('input[name=form]').value;
    const fields = { form, job_id: job, use_case: 'notifications', name: 'worker-1',
        previewed_at: new Date().toISOString() };
    const found = {};
    for (const name of names) {
        const body = new URLSearchParams(name === 'quota' ? { form, tenant_id: 'bolt' } : fields);
        const how = { method: 'POST', body, redirect: 'manual' };
        found[name] = (await fetch(`/dashboard/actions/${name}`, how)).status;
    }
    return found;
}"""
REFUSED, WENT_ON = 403, 0
"""A redirect that is not followed has no status in a browser."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tab(shared_database: str) -> Iterator[Visitor]:
    """One browser for this file alone: while it is open, no other event loop can run here."""
    with opened_browser() as browser, served(shared_database) as place:
        yield Visitor(browser.new_page(), place)


@pytest.fixture
def visitor(tab: Visitor) -> Iterator[Visitor]:
    """Somebody who has not signed in; nothing may go wrong in any page of a test."""
    tab.become(None)
    tab.page.set_viewport_size({"width": 1280, "height": 800})
    tab.wrong.clear()
    yield tab
    assert tab.wrong == []


@pytest.fixture
def ids(tab: Visitor, shared_database: str) -> Iterator[list[str]]:
    """Jobs as an operator has them: eight waiting, four dead, of two tenants."""
    with psycopg.connect(shared_database, autocommit=True) as conn:
        conn.execute(EMPTY_ALL_TABLES)
        conn.execute(WORKER)
        yield fill(
            conn,
            kind="welcome",
            tenants=["acme", "acme", "bolt"] * 4,
            statuses=["pending"] * 8 + ["dead"] * 4,
            payload={"email": "ada@mail.example"},
            error={"type": "Refused", "message": "no such mailbox", "traceback": "Traceback …"},
            worker="worker-1",
        )
        conn.execute(EMPTY_ALL_TABLES)


def test_a_token_opens_the_pages_and_nothing_else_does(visitor: Visitor, ids: list[str]) -> None:
    page = visitor.page
    visitor.open("jobs")
    seen = [visitor.look()["title"]]
    for token in ("guessed", ROLES["reader"]):
        page.fill("input[name=token]", token)
        with visitor.sent_on():
            page.keyboard.press("Enter")
        seen.append(visitor.look()["title"])
    with visitor.sent_on():
        page.click("text=Sign out")
    visitor.open("jobs")

    title = "Sign in · Async Jobs"
    assert seen == [title, title, "Overview · Async Jobs"]
    assert visitor.look()["title"] == title


@pytest.mark.parametrize(
    ("role", "width", "seen"),
    [
        ("reader", 1280, "shown shown shown shown shown shown 403 shown shown"),
        ("operator", 390, "shown acts acts acts acts shown acts acts acts"),
        ("bound", 820, "acts acts 403 403 acts shown acts 404 acts"),
    ],
)
def test_each_role_sees_its_pages_and_buttons_and_all_of_them_by_keyboard(
    visitor: Visitor, ids: list[str], role: str, width: int, seen: str
) -> None:
    """In a wide window, on a phone and between: nothing is wider than the window."""
    visitor.become(role)
    visitor.page.set_viewport_size({"width": width, "height": 800})
    found = []
    for path in (*PAGES, "bulk?move=cancel", f"jobs/{ids[0]}", f"jobs/{ids[2]}"):
        status = visitor.open(path)
        shown = visitor.look()
        found.append(str(status) if status != 200 else "acts" if shown["actions"] else "shown")
        assert role != "bound" or "acme" not in shown["texts"], path
        assert visitor.measure() == {"unreached": [], "tooWide": 0}, path

    assert found == seen.split()


def test_the_operator_presses_every_button(visitor: Visitor, ids: list[str]) -> None:
    visitor.become("operator")
    page = visitor.page
    said = []

    def press(button: str, summary: str | None = None, **fields: str) -> None:
        scope = page
        if summary is not None:
            scope = page.locator("details.act", has_text=summary).first
            scope.locator("summary").click()
        for name, value in fields.items():
            scope.locator(f"input[name={name}]").first.fill(value)
        with visitor.sent_on():
            scope.get_by_role("button", name=button).first.click()
        said.append(page.locator(".done").inner_text())

    visitor.open(f"jobs/{ids[0]}")
    press("Cancel this job", "Cancel")
    press("Requeue this job", "Requeue")
    visitor.open("use-cases")
    press("Pause notifications", "Pause")
    press("Resume notifications", "Resume")
    press("Set the capacity", "Scale", capacity="7")
    press("Set the quota", "Set a quota", tenant_id="acme", weight="2")
    visitor.open("processes")
    press("Stop it politely", "Stop")
    visitor.open("dead")
    press("Requeue 4 jobs", "Requeue")
    visitor.open("jobs?tenant_id=bolt")
    page.get_by_role("button", name="Choose all").click()
    said.append(page.locator("output").inner_text())
    press("Cancel chosen")
    visitor.open("jobs?status=cancelled")
    page.get_by_role("link", name="Requeue all …").click()
    press("Requeue 4 jobs")
    visitor.open("bulk?move=cancel")
    press("Cancel 12 jobs")
    visitor.open("audit")

    assert said == [
        *("cancel: 1 changed.", "requeue: 1 changed.", "pause: 1 changed.", "resume: 1 changed."),
        *("scale: 1 changed.", "quota: 1 changed.", "stop: 1 changed.", "requeue: 4 changed."),
        *("4 chosen", "cancel: 4 changed.", "requeue: 4 changed.", "cancel: 12 changed."),
    ]
    assert page.locator("tbody tr").count() == 7 + 4 + 4 + 2


@pytest.mark.parametrize(
    ("role", "may"),
    [("reader", ()), ("bound", ("cancel", "requeue", "cancel-all", "requeue-all"))],
)
def test_who_may_not_act_cannot_though_the_browser_sends_it(
    visitor: Visitor, ids: list[str], shared_database: str, role: str, may: tuple[str, ...]
) -> None:
    visitor.become(role)
    visitor.open("jobs")
    answers = visitor.page.evaluate(PRESS, [list(ACTIONS), ids[0]])

    assert answers == {name: WENT_ON if name in may else REFUSED for name in ACTIONS}
    with psycopg.connect(shared_database) as conn:
        touched = conn.execute(
            "SELECT DISTINCT tenant_id FROM jobs_audit UNION "
            "SELECT tenant_id FROM jobs WHERE status NOT IN ('pending', 'dead')"
        ).fetchall()
    assert touched == ([("bolt",)] if may else [])


def test_a_page_of_another_site_presses_nothing(
    visitor: Visitor, ids: list[str], shared_database: str
) -> None:
    """The browser keeps the session back; with it, the form is still not one of ours."""
    page = visitor.page
    form = (
        f'<form method="post" action="{visitor.place}/dashboard/actions/cancel">'
        f'<input name="job_id" value="{ids[0]}"><button>Win</button></form>'
    )
    seen = []
    for site in ("http://win.example/", f"{visitor.place}/win"):
        visitor.become("operator")
        page.route(site, lambda route: route.fulfill(body=form, content_type="text/html"))
        page.goto(site)
        with visitor.sent_on():
            page.click("button")
        seen.append(visitor.look()["title"])
        page.unroute(site)

    assert seen == ["Sign in · Async Jobs", "The form is not ours · Async Jobs"]
    with psycopg.connect(shared_database) as conn:
        assert conn.execute("SELECT count(*) FROM jobs_audit").fetchone() == (0,)


def test_hostile_texts_stay_texts(visitor: Visitor, ids: list[str], shared_database: str) -> None:
    """Every field of every table holds one, then every parameter."""
    made = store_everywhere(shared_database, HOSTILE)
    looked_at = made if IS_LONG else made[1::24]
    visitor.become("operator")

    for path in (*PAGES, "jobs?status=dead", *(f"jobs/{one}" for one in looked_at)):
        visitor.open(path)
        assert visitor.look()["foreign"] == 0, path
    texts = _joined(HOSTILE)
    for error, dedupe_key in zip(texts[::2], texts[1::2], strict=True):
        visitor.open(f"jobs?{urlencode({'error': error, 'dedupe_key': dedupe_key})}")
        assert visitor.look()["foreign"] == 0, (error, dedupe_key)
    asked = [
        f"{path}?{urlencode({name: text})}"
        for text, name in zip(HOSTILE, itertools.cycle(PARAMETERS))
        for path in [{"move": "bulk", "before_id": "audit"}.get(name, "jobs")]
    ]
    if IS_LONG:
        every = itertools.product(PAGES, PARAMETERS, HOSTILE)
        asked = [f"{path}?{urlencode({name: text})}" for path, name, text in every]
    for path, read in zip(asked, visitor.fetch(asked), strict=True):
        assert read["title"].endswith("Async Jobs"), path
        assert read["foreign"] == 0, path


def test_a_script_that_got_into_a_page_would_not_run(visitor: Visitor, ids: list[str]) -> None:
    """Should a text ever become a part of a page, the Content Security Policy stops it."""
    visitor.become("reader")
    visitor.open("jobs")
    visitor.page.evaluate(
        "() => { const made = document.createElement('div'); document.body.append(made);"
        'made.innerHTML = \'<img src="/x" onerror="document.title = `taken over`">\';'
        "const script = document.createElement('script');"
        "script.text = 'document.title = `taken over`'; made.append(script); }"
    )
    visitor.page.wait_for_function("document.querySelector('body > div img').complete")

    assert visitor.look()["title"] == "Jobs · Async Jobs"
    refused = [each for each in visitor.wrong if "Content Security Policy" in each]
    assert len(refused) == 2
    visitor.wrong = [each for each in visitor.wrong if each not in refused]


def test_a_job_is_cancelled_without_a_mouse(visitor: Visitor, ids: list[str]) -> None:
    visitor.become("operator")
    visitor.open(f"jobs/{ids[0]}")
    press = visitor.page.keyboard.press
    press("Tab")
    skip = visitor.page.evaluate("document.activeElement.innerText")
    press("Enter")
    for key in ("Tab", "Enter", "Tab"):
        press(key)
    with visitor.sent_on():
        press("Enter")
    said = visitor.page.locator(".done").inner_text()

    assert (skip, said) == ("To the content", "cancel: 1 changed.")


# It takes the pictures of the docs, for who asks for new ones; the pages are tested above.
@pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="set SCREENSHOTS to a folder")
def test_pictures_for_the_docs_are_taken(visitor: Visitor, shared_database: str) -> None:
    with psycopg.connect(shared_database, autocommit=True) as conn:
        conn.execute(EMPTY_ALL_TABLES)
        conn.execute(SHOP)
        (waiting,) = conn.execute(WAITING).fetchone() or ("",)
        visitor.become("operator")
        for each in pictures(str(waiting)):
            visitor.page.set_viewport_size({"width": each.width, "height": each.height})
            visitor.page.emulate_media(color_scheme=each.scheme)
            visitor.open(each.path)
            shot = Path(os.environ["SCREENSHOTS"]) / f"dashboard-{each.name}.png"
            visitor.page.screenshot(path=shot, full_page=each.width > PHONE)
            assert shot.stat().st_size <= MOST_PICTURE_BYTES, each.name
        visitor.page.emulate_media(color_scheme="light")
        conn.execute(EMPTY_ALL_TABLES)


def _joined(texts: list[str]) -> list[str]:
    """As few texts as hold all of them and are short enough for a filter; an even number."""
    found = [""]
    for text in filter(str.isprintable, texts):
        if len(found[-1]) + len(text) > LONGEST_TEXT:
            found.append("")
        found[-1] += text
    return [*found, *[found[0]] * (len(found) % 2)]
