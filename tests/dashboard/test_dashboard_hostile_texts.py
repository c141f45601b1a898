"""Whatever jobs and addresses hold, pages stay what they are: the same tags and attributes."""

from __future__ import annotations

from html.parser import HTMLParser

import psycopg
import pytest
from hostile_texts import HOSTILE
from jobs_to_look_at import store_everywhere
from moving_parts import EMPTY_ALL_TABLES

from .conftest import PAGES, Visitor

HARMLESS = [f"no name, {number:02}" for number in range(len(HOSTILE))]
STATUS = {"done": 200, "before_id": 200, "cursor": 404}
PARAMETERS = [
    *("tenant_id", "use_case", "status", "type", "late", "failed", "cursor", "done", "before_id"),
    *("enqueued_from", "enqueued_until", "run_from", "run_until"),
]


class Tags(HTMLParser):
    """Every tag of a page with the names of its attributes, and what kind of address they hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        foreign = [text for name, text in attrs if name in ("href", "src", "action", "formaction")]
        places = ["ours" if (text or "").startswith(("/", "#")) else str(text) for text in foreign]
        self.found.append((tag, *(name for name, _ in attrs), *places))


async def test_hostile_texts_in_every_field_change_no_tag(operator: Visitor, database: str) -> None:
    seen = []
    for texts in (HOSTILE, HARMLESS):
        with psycopg.connect(database, autocommit=True) as conn:
            conn.execute(EMPTY_ALL_TABLES)
        waiting, dead, *_ = store_everywhere(database, texts)
        paths = (*PAGES, "jobs?status=dead", f"jobs/{waiting}", f"jobs/{dead}")
        seen.append([(await operator.get(path)).text for path in paths])

    for path, hostile, harmless in zip(paths, *seen, strict=True):
        assert Tags(hostile).found == Tags(harmless).found, path
        assert path == "" or "&lt;script&gt;" in hostile, path


async def test_filters_that_take_any_text_show_it_as_a_text(operator: Visitor) -> None:
    wanted = Tags((await operator.get("jobs", error="harmless", dedupe_key="harmless")).text).found
    for text in filter(str.isprintable, HOSTILE):
        shown = await operator.get("jobs", error=text, dedupe_key=text)

        assert shown.status_code == 200
        assert Tags(shown.text).found == wanted, text


@pytest.mark.parametrize("name", PARAMETERS)
async def test_other_parameters_are_checked_and_never_repeated(
    operator: Visitor, name: str
) -> None:
    for text in HOSTILE[PARAMETERS.index(name) % 4 :: 4]:
        answer = await operator.get("audit" if name == "before_id" else "jobs", **{name: text})

        assert answer.status_code == STATUS.get(name, 422)
        assert text not in answer.text
