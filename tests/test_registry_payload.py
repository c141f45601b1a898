"""Payloads declared as models, and the import of the module that registers handlers."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from registry_context import CONTEXT

from async_jobs import registry as registry_module
from async_jobs.errors import DuplicateHandler, InvalidPayload, RegistryError
from async_jobs.registry import JobRegistry, load_handlers


@dataclass
class Mail:
    recipient: str
    copies: int = 1
    tags: dict[str, int] = field(default_factory=dict)


class StrictMail(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    id: UUID
    sent_at: datetime
    subject: str = "hello"

    @field_validator("subject")
    @classmethod
    def quotes_what_it_got(cls, subject: str) -> str:
        if "hunter2" in subject:
            raise ValueError(f"refusing {subject}")
        return subject


class Text(BaseModel):
    number: int


STRICT = {"id": "550e8400-e29b-41d4-a716-446655440000", "sent_at": "2026-01-01T00:00:00Z"}


@pytest.fixture
def registry() -> JobRegistry:
    registry = JobRegistry()

    @registry.handler("mail")
    async def mail(ctx: object, payload: Mail) -> object:
        return payload

    @registry.handler("strict")
    def strict(payload: StrictMail) -> object:
        return payload

    @registry.handler("either")
    async def either(payload: Annotated[Mail | Text, Field(union_mode="smart")]) -> object:
        return payload

    return registry


async def call(registry: JobRegistry, type: str, payload: Mapping[str, Any]) -> object:
    return await registry.handler_for(type)(CONTEXT, payload)


async def refusal(registry: JobRegistry, type: str, payload: Mapping[str, Any]) -> InvalidPayload:
    with pytest.raises(InvalidPayload) as raised:
        await call(registry, type, payload)
    return raised.value


async def test_a_dataclass_is_made_of_the_payload(registry: JobRegistry) -> None:
    made = await call(registry, "mail", {"recipient": "a", "copies": 2})

    assert made == Mail(recipient="a", copies=2)


async def test_a_strict_model_takes_dates_and_ids_as_json_spells_them(
    registry: JobRegistry,
) -> None:
    made = await call(registry, "strict", STRICT)

    assert made == StrictMail(id=UUID(STRICT["id"]), sent_at=datetime(2026, 1, 1, tzinfo=UTC))


async def test_a_union_of_models_picks_the_one_that_fits(registry: JobRegistry) -> None:
    assert await call(registry, "either", {"number": 3}) == Text(number=3)


async def test_a_payload_that_does_not_fit_names_every_field(registry: JobRegistry) -> None:
    error = await refusal(registry, "mail", {"copies": "many", "tags": {"x": "y"}})

    assert error.type == "mail"
    assert error.problems == ("recipient: missing", "copies: int parsing", "tags.x: int parsing")


async def test_a_refusal_never_holds_the_values(registry: JobRegistry) -> None:
    error = await refusal(registry, "strict", STRICT | {"subject": "hunter2", "id": "hunter2"})

    assert error.__context__ is None
    assert "hunter2" not in "".join(traceback.format_exception(error))


async def test_keys_that_are_no_names_are_quoted_and_cut(registry: JobRegistry) -> None:
    error = await refusal(registry, "mail", {"recipient": "a", "tags": {"x\n\x1b" * 99: "y"}})

    assert "\n" not in error.problems[0]
    assert "\x1b" not in error.problems[0]
    assert len(error.problems[0]) < 100


async def test_the_handler_is_not_entered_when_the_payload_does_not_fit() -> None:
    registry = JobRegistry()
    entered: list[Mail] = []
    registry.handler("mail")(_recording(entered))

    await refusal(registry, "mail", {})

    assert entered == []


def _recording(entered: list[Mail]) -> Any:
    async def handler(payload: Mail) -> None:
        entered.append(payload)

    return handler


def test_a_model_that_pydantic_cannot_use_is_told_when_prepared() -> None:
    @dataclass
    class Odd:
        log: logging.Logger

    async def send(payload: object) -> None: ...

    send.__annotations__["payload"] = Odd
    registry = JobRegistry()
    registry.handler("mail")(send)

    with pytest.raises(RegistryError, match="model of type 'mail' cannot be used by pydantic"):
        registry.prepare()


def test_a_process_without_declared_payloads_never_loads_pydantic() -> None:
    code = """
import asyncio, sys
from dataclasses import dataclass
from async_jobs.registry import job_registry

@dataclass
class Mail:
    recipient: str

@job_registry.handler("plain")
async def plain(ctx, payload: dict): return payload

@job_registry.handler("declared")
async def declared(ctx, payload: Mail): return payload

asyncio.run(job_registry.handler_for("plain")(None, {}))
assert "pydantic" not in sys.modules
asyncio.run(job_registry.handler_for("declared")(None, {"recipient": "a"}))
assert "pydantic" in sys.modules
"""

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, JobRegistry]]:
    """A folder on the import path, and the registry that load_handlers fills."""
    registry = JobRegistry()
    monkeypatch.setattr(registry_module, "job_registry", registry)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield tmp_path, registry
    for name in set(sys.modules) - known:
        del sys.modules[name]


REGISTERING = """
from async_jobs.registry import job_registry

@job_registry.handler("mail")
def send(ctx, payload): ...
"""


def test_handlers_are_registered_by_importing_their_module(
    modules: tuple[Path, JobRegistry],
) -> None:
    folder, registry = modules
    (folder / "shop").mkdir()
    (folder / "shop" / "handlers_a.py").write_text(REGISTERING)

    load_handlers("shop.handlers_a")

    assert registry.types() == ("mail",)


@pytest.mark.parametrize("name", ["", "os;rm", "../x", "/x.py", "a..b", ".a", "a.b ", "a.class"])
def test_what_is_no_dotted_name_is_not_imported(name: str) -> None:
    with pytest.raises(RegistryError, match="not a dotted module name") as raised:
        load_handlers(name)
    assert not name or name not in str(raised.value).replace("no path, no .py", "")


@pytest.mark.parametrize(
    ("name", "missing"), [("nowhere_a.handlers", "nowhere_a"), ("json.nothing", "json.nothing")]
)
def test_a_missing_module_is_named_with_the_remedy(name: str, missing: str) -> None:
    with pytest.raises(RegistryError, match=f"no module {missing} .* PYTHONPATH"):
        load_handlers(name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import nowhere_b", "ModuleNotFoundError: No module named 'nowhere_b'"),
        ("from json import nothing", "ImportError: cannot import name 'nothing'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
    ],
)
def test_a_module_that_fails_is_shown_with_its_cause(
    modules: tuple[Path, JobRegistry], text: str, told: str
) -> None:
    (modules[0] / "handlers_b.py").write_text(text)

    with pytest.raises(RegistryError, match="handlers_b failed while it was imported") as raised:
        load_handlers("handlers_b")
    assert told in str(raised.value)
    assert raised.value.__cause__ is not None


def test_errors_of_the_registry_come_through_as_they_are(
    modules: tuple[Path, JobRegistry],
) -> None:
    twice = REGISTERING + REGISTERING.replace("send", "send_again")
    (modules[0] / "handlers_c.py").write_text(twice)

    with pytest.raises(DuplicateHandler):
        load_handlers("handlers_c")


def test_a_module_without_handlers_is_refused(modules: tuple[Path, JobRegistry]) -> None:
    (modules[0] / "handlers_d.py").write_text("")

    with pytest.raises(RegistryError, match="handlers_d registers no handler"):
        load_handlers("handlers_d")


def test_the_current_directory_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "handlers_e.py").write_text(REGISTERING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])

    with pytest.raises(RegistryError, match="no module handlers_e"):
        load_handlers("handlers_e")


def test_a_payload_model_that_cannot_be_used_is_told_when_handlers_are_loaded(
    modules: tuple[Path, JobRegistry],
) -> None:
    (modules[0] / "handlers_f.py").write_text("""
import logging
from dataclasses import dataclass
from async_jobs.registry import job_registry

@dataclass
class Odd:
    log: logging.Logger

@job_registry.handler("mail")
def send(payload: Odd): ...
""")

    with pytest.raises(RegistryError, match="model of type 'mail' cannot be used by pydantic"):
        load_handlers("handlers_f")
