"""The registry: which handler runs jobs of which type.

An application decorates its handlers with `@job_registry.handler("type")`; the
worker imports the module that does so (`load_handlers`) and asks for a handler
by a job's type. A type is only ever looked up: nothing is imported, and no
attribute read, because a payload or a type says so.

A handler is `async def` or plain `def` and takes `(ctx, payload)` or
`(payload)`. A payload annotated with a dataclass or a pydantic model is
validated before the call. Nothing here times, retries or records an attempt.
"""

from __future__ import annotations

import asyncio
import builtins
import importlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from functools import partial
from keyword import iskeyword
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, cast

from async_jobs.errors import (
    AsyncJobsError,
    DuplicateHandler,
    InvalidPayload,
    RegistryError,
    UnknownType,
)
from async_jobs.models import canonical_name

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from async_jobs.models import JobContext

F = TypeVar("F", bound=Callable[..., object])

_PLAIN = (inspect.Parameter.empty, Any, object, dict, Mapping, MutableMapping)
_CONTEXT_NAMES = ("ctx", "context")
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class PayloadModel:
    """The dataclass or pydantic model that a handler declares for its payload.

    The validator is built at the first use, so a process that only enqueues
    never loads pydantic for it.
    """

    def __init__(self, annotation: object) -> None:
        self.annotation = annotation
        self._adapter: TypeAdapter[object] | None = None

    def prepare(self) -> TypeAdapter[object]:
        """Build the validator now; the second call costs nothing."""
        if self._adapter is None:
            from pydantic import TypeAdapter

            self._adapter = TypeAdapter(cast("type[object]", self.annotation))
        return self._adapter

    def fit(self, type: str, payload: Mapping[str, Any]) -> object:
        """*payload* as the declared model; raises `InvalidPayload` naming fields, never values."""
        adapter = self.prepare()
        from pydantic import ValidationError

        try:
            # As JSON, so that strict models too take dates and UUIDs from text.
            return adapter.validate_json(json.dumps(payload))
        except ValidationError as error:
            # Its messages may quote the payload; places and kinds of mistake do not.
            found = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidPayload(
            type, [f"{_place(each['loc'])}: {_words(each['type'])}" for each in found]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A registered handler: call it with the context and the payload of an attempt.

    `timeout_seconds` is what its registration asked for; whoever runs attempts
    enforces it. A plain function runs in a thread, with the context variables
    of the attempt; a thread cannot be interrupted, so a cancelled call waits for it.
    """

    type: str
    function: Callable[..., Any]
    takes_context: bool
    is_async: bool
    model: PayloadModel | None = None
    timeout_seconds: float | None = None

    async def __call__(self, ctx: JobContext | None, payload: Mapping[str, Any]) -> object:
        """Run the handler; raises what it raises, and `InvalidPayload` before it is entered.

        *ctx* may be None for a handler that takes none.
        """
        given = payload if self.model is None else self.model.fit(self.type, payload)
        arguments = (ctx, given) if self.takes_context else (given,)
        if self.is_async:
            return await self.function(*arguments)
        result = await _in_thread(self.function, arguments)
        # A decorator may hide an `async def` behind a plain function.
        return await result if inspect.isawaitable(result) else result


async def _in_thread(function: Callable[..., object], arguments: tuple[object, ...]) -> object:
    call = partial(copy_context().run, _called, function, arguments)
    work = asyncio.get_running_loop().run_in_executor(None, call)
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([work])
    return work.result()


def _called(function: Callable[..., object], arguments: tuple[object, ...]) -> object:
    try:
        return function(*arguments)
    except StopIteration as error:
        # A future refuses this one, and whoever waits for it would wait for ever.
        raise RuntimeError("the handler raised StopIteration") from error


class JobRegistry:
    """Handlers by job type. Fill it while modules are imported, then only read it."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._missed: dict[tuple[str, str], Handler] = {}

    def handler(self, type: str, *, timeout_seconds: float | None = None) -> Callable[[F], F]:
        """Register the decorated function for jobs of *type* and return it unchanged.

        Registering the same function again, as a reload does, replaces it.
        Raises `DuplicateHandler` for another function, and `RegistryError` for a
        function that cannot take `(ctx, payload)` or `(payload)`.
        """
        _check_registration(type, timeout_seconds)

        def register(function: F) -> F:
            known = self._handlers.get(type)
            if known is not None and not _is_same(known.function, function):
                raise DuplicateHandler(type)
            self._handlers[type] = _handler_of(type, function, timeout_seconds)
            return function

        return register

    def on_missed(
        self, type: str | None = None, *, use_case: str | None = None
    ) -> Callable[[F], F]:
        """Register what decides about jobs of *type*, or of *use_case*, that start late.

        It takes what a handler takes, and a worker calls it instead of the handler when the
        attempt starts after the job's deadline. It returns `OnLate.RUN`, `OnLate.DROP` or
        `OnLate.DEAD` (or their texts), or raises what a handler may raise. One for the type
        goes before one for the use case. Raises as `handler` does.
        """
        key = _missed_key(type, use_case)
        name = key[0] or key[1]

        def register(function: F) -> F:
            known = self._missed.get(key)
            if known is not None and not _is_same(known.function, function):
                raise RegistryError(
                    f"There is an on_missed for {name!r} already. One type or use case has one: "
                    "decide by ctx.type inside it."
                )
            self._missed[key] = _handler_of(name, function, None)
            return function

        return register

    def missed_for(self, type: str, use_case: str) -> Handler | None:
        """What decides about late jobs of *type* in *use_case*, None if nothing was registered."""
        return self._missed.get((type, "")) or self._missed.get(("", use_case))

    def handler_for(self, type: str) -> Handler:
        """The handler of *type*; raises `UnknownType`, which carries the closest known type."""
        handler = self._handlers.get(type)
        if handler is None:
            closest = get_close_matches(type, self._handlers, n=1)
            raise UnknownType(type, closest[0] if closest else None)
        return handler

    def types(self) -> tuple[str, ...]:
        """Every registered type, in alphabetical order."""
        return tuple(sorted(self._handlers))

    def prepare(self) -> None:
        """Build the validators of declared payloads, so that a mistake shows before a job runs.

        Raises `RegistryError` for a model that pydantic cannot use.
        """
        for handler in (*self._handlers.values(), *self._missed.values()):
            if handler.model is not None:
                _prepare(handler.type, handler.model)


job_registry = JobRegistry()


def load_handlers(module: str) -> None:
    """Import the module that registers the handlers on `job_registry`.

    It is found as any import is: the current directory is not added. Raises
    `RegistryError` when the name is not a dotted module name, when there is no
    such module, when it fails while it is imported, or when nothing is
    registered afterwards.
    """
    if not all(part.isidentifier() and not iskeyword(part) for part in module.split(".")):
        raise RegistryError(
            "The handlers module is not a dotted module name. Name it as an import statement "
            "does, such as myapp.job_handlers: no path, no .py."
        )
    try:
        importlib.import_module(module)
    except AsyncJobsError:
        raise
    except Exception as error:
        raise RegistryError(_import_problem(module, error)) from error
    if not job_registry.types():
        raise RegistryError(
            f"The module {module} registers no handler. Decorate one with "
            '@job_registry.handler("type"), from async_jobs.registry.'
        )
    job_registry.prepare()


def _import_problem(module: str, error: Exception) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{module}.".startswith(f"{missing}."):
        return (
            f"There is no module {missing} to import handlers from. Install the package that holds "
            "it, or add the folder above it to PYTHONPATH (the current directory is not searched)."
        )
    return (
        f"The handlers module {module} failed while it was imported: "
        f"{type(error).__name__}: {error}"
    )


def _check_registration(type: object, timeout_seconds: float | None) -> None:
    if callable(type):
        raise RegistryError('The decorator needs the type: write @job_registry.handler("my_type").')
    if not isinstance(type, str) or not type.strip():
        raise RegistryError("The type of a handler needs to be text that is not blank.")
    if timeout_seconds is not None and not 0 < timeout_seconds < inf:
        raise RegistryError(f"timeout_seconds of type {type!r} needs to be a number above 0.")


def _missed_key(type: str | None, use_case: str | None) -> tuple[str, str]:
    if (type is None) == (use_case is None) or callable(type):
        raise RegistryError(
            'on_missed needs a type or a use case: write @job_registry.on_missed("my_type") or '
            '@job_registry.on_missed(use_case="my_use_case").'
        )
    name = use_case if type is None else type
    if not isinstance(name, str) or not name.strip():
        raise RegistryError("What on_missed is for needs to be text that is not blank.")
    return (name, "") if use_case is None else ("", canonical_name(name))


def _is_same(known: Callable[..., object], new: Callable[..., object]) -> bool:
    if known is new:
        return True
    names = [
        (getattr(each, "__module__", None), getattr(each, "__qualname__", "<unnamed>"))
        for each in (known, new)
    ]
    # Functions made inside functions, and lambdas, share names without being the same.
    return names[0] == names[1] and "<" not in names[0][1]


def _handler_of(type: str, function: Callable[..., object], timeout: float | None) -> Handler:
    takes_context, parameter = _shape(type, function)
    annotation = _resolved(type, function, parameter)
    return Handler(
        type=type,
        function=function,
        takes_context=takes_context,
        is_async=_is_async(function),
        model=_model_of(type, annotation),
        timeout_seconds=timeout,
    )


def _is_async(function: Callable[..., object]) -> bool:
    called = builtins.type(function).__call__  # an object may have an async __call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _shape(type: str, function: Callable[..., object]) -> tuple[bool, inspect.Parameter]:
    """Whether *function* takes the context, and the parameter that takes the payload."""
    parameters = _parameters(type, function)
    needed = [each for each in parameters if each.default is each.empty and each.kind not in _REST]
    slots = [each for each in parameters if each.kind in _BY_POSITION]
    slots += 2 * [each for each in parameters if each.kind is each.VAR_POSITIONAL]
    first = slots[0].name if slots else ""
    takes_context = first in _CONTEXT_NAMES or (
        len(slots) >= 2 and len(needed) != 1 and first != "payload"
    )
    given = slots[: 2 if takes_context else 1]
    if len(given) < 1 + takes_context or any(each not in given for each in needed):
        raise RegistryError(
            f"The handler of type {type!r} takes ({', '.join(each.name for each in parameters)}). "
            "A handler takes (ctx, payload) or (payload) by position; give every other parameter "
            "a default."
        )
    return takes_context, given[-1]


def _parameters(type: str, function: Callable[..., object]) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise RegistryError(
            f"The handler of type {type!r} is not a function whose parameters can be read."
        ) from None
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise RegistryError(
            f"The handler of type {type!r} is a generator and would never run. Return a value "
            "instead of yielding."
        )
    return parameters


def _resolved(type: str, function: Callable[..., object], parameter: inspect.Parameter) -> object:
    """The annotation of *parameter*, looked up where the function was defined if it is text."""
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    inner = inspect.unwrap(function.func if isinstance(function, partial) else function)
    defined_in = inner if hasattr(inner, "__globals__") else builtins.type(inner).__call__
    holder = types.SimpleNamespace(__annotations__={"payload": parameter.annotation})
    try:
        hints = typing.get_type_hints(
            holder, globalns=getattr(defined_in, "__globals__", {}), include_extras=True
        )
    except Exception:
        raise RegistryError(
            f"The annotation of the payload of type {type!r} cannot be resolved. Define or import "
            "the class at the top of the module, above the handler and outside TYPE_CHECKING."
        ) from None
    return hints["payload"]


def _model_of(type: str, annotation: object) -> PayloadModel | None:
    if typing.get_origin(annotation) is typing.Annotated:
        plain = typing.get_args(annotation)[0]
    else:
        plain = annotation
    if (typing.get_origin(plain) or plain) in _PLAIN or typing.is_typeddict(plain):
        return None
    if _is_model(plain):
        return PayloadModel(annotation)
    raise RegistryError(
        f"The payload of type {type!r} is annotated with something that is no JSON object. Use "
        "dict[str, Any], a dataclass or a pydantic model."
    )


def _is_model(annotation: object) -> bool:
    """Whether this is a dataclass, a pydantic model, or a union of such."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return all(_is_model(each) for each in typing.get_args(annotation))
    cls = origin or annotation
    return isinstance(cls, builtins.type) and (is_dataclass(cls) or hasattr(cls, "model_validate"))


def _prepare(type: str, model: PayloadModel) -> None:
    try:
        model.prepare()
    except Exception as error:
        raise RegistryError(
            f"The payload model of type {type!r} cannot be used by pydantic: "
            f"{builtins.type(error).__name__}: {error}"
        ) from error


def _place(location: tuple[int | str, ...]) -> str:
    """Where in the payload, such as `items.0.price`; keys that are no names are shown quoted."""
    parts = [str(part) if str(part).isidentifier() else repr(part)[:60] for part in location]
    return ".".join(parts) or "payload"


def _words(kind: str) -> str:
    return kind.replace("_", " ")
