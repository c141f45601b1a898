"""A real Chromium before a real dashboard process, and a list of all that goes wrong in a page.

Playwright drives the Chromium that the system has, or the one that it has fetched itself.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_line import read_until, start

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PATIENCE_MS = 20_000
ROLES = {"reader": "reads-0123456789", "operator": "operates-0123456", "bound": "bound-012345678"}
SIGNED_IN = 303
PAGES = ("", "jobs", "use-cases", "processes", "dead", "audit")

TOKENS: list[dict[str, Any]] = [
    {"name": "reader", "scopes": ["read"]},
    {"name": "operator", "scopes": ["read", "operate"]},
    {"name": "bound", "scopes": ["read", "operate"], "tenant_id": "bolt"},
]
READ = """
    const foreign = 'iframe, object, embed, base, main script, main img, main link, main meta';
    const read = (page) => {
        const all = (what) => [...page.querySelectorAll(what)];
        const scripted = (each) => each.name.startsWith('on')
            || each.name !== 'value' && each.value.startsWith('javascript:');
        return {
            title: page.title,
            texts: page.querySelector('main').innerText,
            actions: all("form[action*='/actions/'], [formaction*='/actions/']").length,
            foreign: all(foreign).length
                + all('*').filter((one) => [...one.attributes].some(scripted)).length,
        };
    };
"""
LOOK = f"() => {{ {READ} return read(document); }}"
FETCH = f"""async (paths) => {{ {READ}
    const found = [];
    for (const path of paths) {{
        const text = await (await fetch(path)).text();
        found.push(read(new DOMParser().parseFromString(text, 'text/html')));
    }}
    return found;
}}"""
MEASURE = """() => {
    const isShown = (one) => one.checkVisibility() && one.type !== 'hidden';
    const isReached = (one) => {
        one.focus({ preventScroll: true });
        return one.tabIndex === 0 && document.activeElement === one;
    };
    const controls = [...document.querySelectorAll('a[href], button, input, select, summary')];
    return {
        unreached: controls.filter((one) => isShown(one) && !isReached(one))
            .map((one) => one.outerHTML),
        tooWide: Math.max(0, document.documentElement.scrollWidth - window.innerWidth),
    };
}"""


@dataclass
class Visitor:
    """Somebody before the browser, who may change tokens; `wrong` is what no page may do."""

    page: Any
    place: str
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("dialog", self._dialog)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("console", self._console)

    def become(self, role: str | None) -> None:
        """Sign in as *role*, with no page in between, or out."""
        self.page.context.clear_cookies()
        if role is not None:
            address = f"{self.place}/dashboard/sign-in"
            form = re.search(r'name="form" value="(\w+)"', self.page.request.get(address).text())
            assert form is not None
            fields = {"form": form.group(1), "token": ROLES[role]}
            assert self.page.request.post(address, form=fields, max_redirects=0).status == SIGNED_IN

    @contextmanager
    def sent_on(self) -> Iterator[None]:
        """What is done here leads to another page; ends when that is there."""
        with self.page.expect_navigation():
            yield

    def open(self, path: str) -> int:
        """Go to a page of the dashboard; the status of the answer."""
        return int(self.page.goto(f"{self.place}/dashboard/{path}").status)

    def look(self) -> Mapping[str, Any]:
        """What stands on the page."""
        return self.page.evaluate(LOOK)  # type: ignore[no-any-return] # Playwright says Any

    def fetch(self, paths: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """What stands on other pages, as the browser reads them."""
        places = [f"/dashboard/{path}" for path in paths]
        return self.page.evaluate(FETCH, places)  # type: ignore[no-any-return] # the same

    def measure(self) -> Mapping[str, Any]:
        """What the keyboard cannot reach, and by how much the page is wider than its window."""
        return self.page.evaluate(MEASURE)  # type: ignore[no-any-return] # the same

    def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, message: Any) -> None:
        refused = re.search(r"status of (401|403|404|422) ", message.text)
        if message.type == "error" and not refused:
            self.wrong.append(f"console: {message.text}")


@contextmanager
def served(database: str) -> Iterator[str]:
    """A dashboard process that knows a token for each role; where it is."""
    known = [{**token, "token": ROLES[token["name"]]} for token in TOKENS]
    env = {"ASYNC_JOBS_DB_DSN": database, "ASYNC_JOBS_API_TOKENS": json.dumps(known)}
    process = start("dashboard", "--port", "0", env=env)
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", read_until(process, "127.0.0.1:"))
        assert found is not None
        yield found.group(0)
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextmanager
def opened_browser() -> Iterator[Any]:
    """A browser without a window; skips the test where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with driver.sync_playwright() as playwright:
        place = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(place).exists():
            pytest.skip("no Chromium here: apt install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=place, args=ARGUMENTS)
        yield browser
        browser.close()
