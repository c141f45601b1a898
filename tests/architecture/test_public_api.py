"""The public names and their signatures, as a snapshot that a reviewer reads.

Users may rely on what stands there and on nothing else. After an intended
change: `UPDATE_SNAPSHOTS=1 pytest tests/architecture`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from importlib import import_module
from types import ModuleType
from typing import TypeVar

from source_tree import matches_snapshot

import async_jobs

PUBLIC_MODULES = ("models", "registry", "ddl", "config", "errors", "testing", "telemetry.events")


def test_the_public_names_are_those_of_the_snapshot() -> None:
    lines = ["async_jobs", *(f"    {line}" for name in async_jobs.__all__ for line in _top(name))]
    for name in PUBLIC_MODULES:
        module = import_module(f"async_jobs.{name}")
        lines += ["", module.__name__, *(f"    {line}" for line in _module(module))]

    assert matches_snapshot("public_api.txt", "\n".join(lines) + "\n"), (
        "The public names have changed. If that is meant, run the tests of this folder once with "
        "UPDATE_SNAPSHOTS=1 and tell the change in CHANGELOG.md."
    )


def test_every_public_name_can_be_had() -> None:
    missing = [name for name in async_jobs.__all__ if not hasattr(async_jobs, name)]

    assert missing == []


def test_every_public_function_and_class_says_what_it_is() -> None:
    silent = [
        f"{module.__name__}.{name}"
        for module in (import_module(f"async_jobs.{name}") for name in PUBLIC_MODULES)
        for name, value in _public(module)
        if (inspect.isclass(value) or inspect.isfunction(value)) and not inspect.getdoc(value)
    ]

    assert silent == []


def _top(name: str) -> Iterator[str]:
    value = getattr(async_jobs, name)
    home = getattr(value, "__module__", "")
    if home.removeprefix("async_jobs.") in PUBLIC_MODULES or isinstance(value, str):
        yield name
    else:
        yield from _described(name, value)


def _module(module: ModuleType) -> Iterator[str]:
    for name, value in _public(module):
        yield from _described(name, value)


def _public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The module's own public classes, functions and ready-made objects, in order of name."""
    for name in sorted(getattr(module, "__all__", vars(module))):
        value = getattr(module, name)
        home = getattr(value, "__module__", "") or ""
        is_ours = home.startswith("async_jobs") and not isinstance(value, TypeVar)
        if not name.startswith("_") and is_ours:
            at_home = hasattr(module, "__all__") or home == module.__name__
            if at_home or not (inspect.isclass(value) or inspect.isfunction(value)):
                yield name, value


def _described(name: str, value: object) -> Iterator[str]:
    if inspect.isclass(value):
        yield from _class(name, value)
    elif inspect.isfunction(value):
        yield f"{_def(value)} {name}{_signature(value)}"
    else:
        yield f"{name}: {type(value).__name__}"


def _class(name: str, cls: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    yield f"class {name}({bases})" if bases else f"class {name}"
    if issubclass(cls, Enum):
        yield from (f"    {member.name} = {member.value!r}" for member in cls)
        return
    for member, value in sorted(_members(cls).items()):
        if member == "__init__" and inspect.isfunction(value):
            yield f"    def __init__{_signature(value)}"
        elif not member.startswith("_"):
            yield from (f"    {line}" for line in _member(member, value))


def _members(cls: type) -> dict[str, object]:
    """Its own members, and those of bases of ours that are not shown themselves."""
    bases = [base for base in cls.__mro__[1:] if base.__module__ == "async_jobs.steering"]
    return {name: value for each in (*bases, cls) for name, value in vars(each).items()}


def _member(name: str, value: object) -> Iterator[str]:
    inner = getattr(value, "__func__", value)
    if isinstance(value, property):
        yield f"property {name}{_signature(value.fget) if value.fget else ''}"
    elif inspect.isfunction(inner):
        yield f"{_def(inner)} {name}{_signature(inner)}"


def _def(function: Callable[..., object]) -> str:
    return "async def" if inspect.iscoroutinefunction(function) else "def"


def _signature(function: Callable[..., object]) -> str:
    """The signature with its annotations as written, and defaults where they are plain."""
    signature = inspect.signature(function)
    parameters = [
        each.replace(annotation=_annotation(each.annotation), default=_default(each.default))
        for each in signature.parameters.values()
    ]
    answer = _annotation(signature.return_annotation)
    return str(signature.replace(parameters=parameters, return_annotation=answer))


def _annotation(annotation: object) -> object:
    """Annotations are texts, because every module postpones their evaluation."""
    return _Text(annotation) if isinstance(annotation, str) else annotation


def _default(value: object) -> object:
    if isinstance(value, Enum):
        return _Text(f"{type(value).__name__}.{value.name}")
    if value is inspect.Parameter.empty or value is None or isinstance(value, int | float | str):
        return value
    return _Text("...")


class _Text:
    """Prints as the text it was made of."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text
