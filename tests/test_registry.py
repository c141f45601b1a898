"""The registry: who handles what, what a handler may look like, and what its payload must fit."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, TypedDict

import pytest
from registry_context import CONTEXT

from async_jobs.errors import DuplicateHandler, RegistryError, UnknownType
from async_jobs.models import JobContext
from async_jobs.registry import JobRegistry

TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")


@dataclass
class Mail:
    recipient: str
    copies: int = 1


class MailKeys(TypedDict):
    recipient: str


@pytest.fixture
def registry() -> JobRegistry:
    return JobRegistry()


async def call(registry: JobRegistry, payload: Mapping[str, Any], type: str = "mail") -> object:
    return await registry.handler_for(type)(CONTEXT, payload)


async def test_the_described_handler_gets_context_and_payload(registry: JobRegistry) -> None:
    @registry.handler("mail")
    async def send(ctx: JobContext, payload: dict[str, Any]) -> object:
        return ctx, payload

    payload = {"recipient": "a"}

    assert await call(registry, payload) == (CONTEXT, payload)


def test_the_decorator_returns_the_function_itself(registry: JobRegistry) -> None:
    async def send(payload: dict[str, Any]) -> None: ...

    assert registry.handler("mail")(send) is send


async def test_a_handler_may_take_the_payload_alone(registry: JobRegistry) -> None:
    @registry.handler("mail")
    async def send(payload: dict[str, Any]) -> object:
        return payload

    assert await call(registry, {"a": 1}) == {"a": 1}


async def test_a_plain_function_runs_in_a_thread_with_the_context_variables(
    registry: JobRegistry,
) -> None:
    @registry.handler("mail")
    def send(ctx: JobContext, payload: dict[str, Any]) -> object:
        return TENANT.get(), threading.current_thread() is threading.main_thread()

    TENANT.set("tenant1")

    assert await call(registry, {}) == ("tenant1", False)


async def test_an_async_function_behind_a_plain_wrapper_is_awaited(registry: JobRegistry) -> None:
    async def send(ctx: JobContext, payload: dict[str, Any]) -> object:
        return payload

    @functools.wraps(send)
    def wrapper(*args: Any) -> Awaitable[object]:
        return send(*args)

    registry.handler("mail")(wrapper)

    assert await call(registry, {"a": 1}) == {"a": 1}


async def test_an_object_with_an_async_call_runs_on_the_loop(registry: JobRegistry) -> None:
    class Sender:
        async def __call__(self, ctx: JobContext, payload: Mail) -> object:
            return asyncio.get_running_loop(), payload

    registry.handler("mail")(Sender())

    assert await call(registry, {"recipient": "a"}) == (
        asyncio.get_running_loop(),
        Mail(recipient="a"),
    )


async def test_a_partial_and_a_bound_method_are_handlers(registry: JobRegistry) -> None:
    class Sender:
        async def send(self, payload: Mail) -> object:
            return payload

    async def send(greeting: str, ctx: JobContext, payload: Mail) -> object:
        return greeting, payload

    registry.handler("method")(Sender().send)
    registry.handler("partial")(functools.partial(send, "hello"))

    assert await call(registry, {"recipient": "a"}, "method") == Mail("a")
    assert await call(registry, {"recipient": "a"}, "partial") == ("hello", Mail("a"))


async def test_what_a_handler_raises_comes_through(registry: JobRegistry) -> None:
    @registry.handler("mail")
    def send(payload: dict[str, Any]) -> None:
        raise KeyError("recipient")

    with pytest.raises(KeyError):
        await call(registry, {})


def both(ctx: object, payload: object) -> None: ...
def both_by_another_name(context: object, data: object) -> None: ...
def payload_may_be_missing(ctx: object, payload: object = None) -> None: ...
def more_with_defaults(ctx: object, payload: object, more: int = 1, *, most: int = 2) -> None: ...
def anything(*args: object, **more: object) -> None: ...
def context_and_rest(ctx: object, *rest: object) -> None: ...
def payload_only(payload: object) -> None: ...
def payload_with_option(data: object, more: int = 1) -> None: ...
def payload_then_option(payload: object = None, more: int = 1) -> None: ...


@pytest.mark.parametrize(
    ("function", "takes_context"),
    [
        (both, True),
        (both_by_another_name, True),
        (payload_may_be_missing, True),
        (more_with_defaults, True),
        (anything, True),
        (context_and_rest, True),
        (payload_only, False),
        (payload_with_option, False),
        (payload_then_option, False),
    ],
)
async def test_the_signature_tells_whether_the_context_is_wanted(
    registry: JobRegistry, function: Callable[..., object], takes_context: bool
) -> None:
    registry.handler("mail")(function)

    assert registry.handler_for("mail").takes_context is takes_context
    assert await call(registry, {}) is None


def nothing() -> None: ...
def context_only(ctx: object) -> None: ...
def three(ctx: object, payload: object, more: object) -> None: ...
def by_name(*, ctx: object, payload: object) -> None: ...
def one_by_name(ctx: object, payload: object, *, more: object) -> None: ...
def the_wrong_way_round(payload: object, ctx: object) -> None: ...


@pytest.mark.parametrize(
    "function", [nothing, context_only, three, by_name, one_by_name, the_wrong_way_round]
)
def test_a_signature_that_cannot_take_them_is_refused_with_what_it_takes(
    registry: JobRegistry, function: Callable[..., object]
) -> None:
    with pytest.raises(RegistryError, match=r"takes \(ctx, payload\) or \(payload\) by position"):
        registry.handler("mail")(function)
    assert registry.types() == ()


def test_a_generator_is_refused(registry: JobRegistry) -> None:
    async def send(payload: dict[str, Any]) -> Any:
        yield payload

    with pytest.raises(RegistryError, match="would never run"):
        registry.handler("mail")(send)


@pytest.mark.parametrize("annotation", [int, str, list[int], Mail | None, "Missing", "1 +"])
def test_a_payload_that_is_no_object_is_refused(registry: JobRegistry, annotation: object) -> None:
    def send(payload: object) -> None: ...

    send.__annotations__["payload"] = annotation

    with pytest.raises(RegistryError, match="payload of type 'mail'"):
        registry.handler("mail")(send)


@pytest.mark.parametrize("annotation", [dict, Mapping[str, Any], Any, object, MailKeys])
async def test_a_payload_annotated_as_an_object_comes_as_it_is(
    registry: JobRegistry, annotation: object
) -> None:
    def send(payload: object) -> object:
        return payload

    send.__annotations__["payload"] = annotation
    registry.handler("mail")(send)
    payload = {"a": 1}

    assert await call(registry, payload) is payload


def test_the_decorator_without_a_type_tells_how_to_write_it(registry: JobRegistry) -> None:
    with pytest.raises(RegistryError, match=r"write @job_registry.handler\(\"my_type\"\)"):
        registry.handler(both)  # type: ignore[arg-type]  # the mistake that is made


@pytest.mark.parametrize("type", ["", "  ", None, 3])
def test_a_type_needs_to_be_text(registry: JobRegistry, type: Any) -> None:
    with pytest.raises(RegistryError, match="not blank"):
        registry.handler(type)


def test_a_time_out_is_kept_on_the_handler(registry: JobRegistry) -> None:
    registry.handler("mail", timeout_seconds=2.5)(both)
    registry.handler("text")(both)

    assert registry.handler_for("mail").timeout_seconds == 2.5
    assert registry.handler_for("text").timeout_seconds is None


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_out_needs_to_be_a_time(registry: JobRegistry, seconds: float) -> None:
    with pytest.raises(RegistryError, match="timeout_seconds of type 'mail'"):
        registry.handler("mail", timeout_seconds=seconds)


def test_a_handler_cannot_be_changed(registry: JobRegistry) -> None:
    registry.handler("mail")(both)

    with pytest.raises(FrozenInstanceError):
        registry.handler_for("mail").timeout_seconds = 1  # type: ignore[misc]  # what must fail


def test_types_are_listed_in_order(registry: JobRegistry) -> None:
    registry.handler("text")(both)
    registry.handler("mail")(both)

    assert registry.types() == ("mail", "text")


def test_an_unknown_type_names_the_closest(registry: JobRegistry) -> None:
    registry.handler("send_notification")(both)

    with pytest.raises(UnknownType) as raised:
        registry.handler_for("send_notifcation")
    assert raised.value.closest == "send_notification"


@pytest.mark.parametrize("type", ["__import__('os').system", "os.system", "handler_for", ""])
def test_a_type_is_only_looked_up(registry: JobRegistry, type: str) -> None:
    with pytest.raises(UnknownType):
        registry.handler_for(type)


def test_another_function_for_the_same_type_is_refused(registry: JobRegistry) -> None:
    registry.handler("mail")(both)

    with pytest.raises(DuplicateHandler) as raised:
        registry.handler("mail")(payload_only)
    assert raised.value.type == "mail"
    assert registry.handler_for("mail").function is both


def test_the_same_function_may_be_registered_again(registry: JobRegistry) -> None:
    registry.handler("mail")(both)
    registry.handler("mail", timeout_seconds=1)(both)

    assert registry.handler_for("mail").timeout_seconds == 1


def test_a_reloaded_function_replaces_its_former_self(registry: JobRegistry) -> None:
    def reloaded() -> Callable[..., object]:
        space: dict[str, Any] = {"__name__": "handlers"}
        exec("def send(ctx, payload): ...", space)  # noqa: S102 # as importing the module again
        function: Callable[..., object] = space["send"]
        return function

    registry.handler("mail")(reloaded())
    second = registry.handler("mail")(reloaded())

    assert registry.handler_for("mail").function is second


def test_two_functions_made_by_one_factory_are_not_the_same(registry: JobRegistry) -> None:
    def made() -> Callable[..., object]:
        return lambda payload: None

    registry.handler("mail")(made())

    with pytest.raises(DuplicateHandler):
        registry.handler("mail")(made())
