"""One setting: what it needs, how its text is read, which values fit, how it is described.

`config` builds its dataclasses from these pieces. A setting is one dataclass
field; beside its default the field carries a `Spec`, and reading, checking and
documentation walk the specs. Nothing here reads the environment or knows which
settings exist, and no text made here holds a secret or a refused value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from ipaddress import ip_address
from keyword import iskeyword
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlsplit

from async_jobs.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

MASK = "(hidden)"
UNREADABLE = object()  # fits no setting, so it is reported where values are checked


@dataclass(frozen=True, slots=True)
class Kind:
    """What a setting needs: in words, as a reader of text, and as a test of values."""

    needs: str
    read: Callable[[str], object]
    fits: Callable[[object], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What is known about one setting beside its type.

    `variables` are read in this order and the first one set counts; `{}` in a
    name stands for the use case. `unset` says in words what happens without a
    value, where the plain default would not tell.
    """

    kind: Kind
    meaning: str
    default: object
    secret: bool = False
    unset: str | None = None
    field: str = ""
    variables: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def default_text(self) -> str:
        return self.unset or ("" if self.required else shown(self.default))

    def read(self, text: str) -> object:
        """The value that *text* stands for; `UNREADABLE` or blank text when it stands for none."""
        try:
            return self.kind.read(text)
        except (ValueError, RecursionError):
            return UNREADABLE if text.strip() else ""

    def line(
        self, value: object, default: object, use_case: str, origin: Mapping[str, object]
    ) -> Setting:
        """This setting as it is now; *origin* holds what variables have set."""
        names = [name.format(use_case.upper()) for name in self.variables]
        set_by = [name for name in names if name in origin and origin[name] == value]
        return Setting(
            name=names[0],
            required=self.required,
            default=self.default_text,
            meaning=self.meaning.format(use_case.replace("_", " ")),
            value=MASK if self.secret and value else shown(value),
            source=set_by[0] if set_by else "default" if value == default else "argument",
            secret=self.secret,
        )

    def problem(self, value: object, variable: str) -> str | None:
        """What is wrong with *value* and what to set instead, or None when it can be used."""
        if (value is None and self.default is None) or self.kind.fits(value):
            return None
        default = f" (default: {self.default_text})" if self.default_text else ""
        otherwise = "" if self.required else f", or unset it{default}"
        return f"{variable}: {_finding(value)}; set it to {self.kind.needs}{otherwise}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One line of `AsyncJobsConfig.describe()`: a variable, its meaning and its present value.

    `value` is text for people, masked when the setting is secret. `source` is
    the variable that set it, "argument", or "default".
    """

    name: str
    required: bool
    default: str
    meaning: str
    value: str
    source: str
    secret: bool


def setting(
    default: T | None,
    kind: Kind,
    meaning: str,
    *,
    variables: str = "",
    secret: bool = False,
    unset: str | None = None,
) -> T:
    """A field of a configuration dataclass together with its spec.

    *variables* (separated by blanks) are needed only where the variable is not
    named like the field.
    """
    made = Spec(
        kind=kind,
        meaning=meaning,
        default=default,
        secret=secret,
        unset=unset,
        variables=tuple(variables.split()),
    )
    if isinstance(default, Mapping):  # dataclasses take no unhashable default
        return cast(T, field(default_factory=lambda: default, metadata={"spec": made}))
    return cast(T, field(default=default, repr=not secret, metadata={"spec": made}))


def required(kind: Kind, meaning: str) -> dict[str, Spec]:
    """The metadata of a secret field without a default, so that type checkers see it is needed."""
    return {"spec": Spec(kind=kind, meaning=meaning, default=MISSING, secret=True)}


@cache
def specs_of(owner: type[DataclassInstance], naming: str) -> tuple[Spec, ...]:
    """The settings among the fields of the dataclass *owner*, in their order.

    *naming* makes a variable's name of a field's `%(name)s` or `%(NAME)s`.
    """
    return tuple(
        replace(
            each.metadata["spec"],
            field=each.name,
            variables=each.metadata["spec"].variables
            or (naming % {"name": each.name, "NAME": each.name.upper()},),
        )
        for each in fields(owner)
        if each.metadata
    )


def problems_of(owner: object, specs: Iterable[Spec], use_case: str = "") -> dict[str, str]:
    """Field → problem, for the settings of *owner* that hold a value that does not fit."""
    found = {
        each.field: each.problem(
            getattr(owner, each.field), " or ".join(each.variables).format(use_case)
        )
        for each in specs
    }
    return {name: problem for name, problem in found.items() if problem}


def raise_if_any(problems: Sequence[str]) -> None:
    """Raise `ConfigError` when there are problems."""
    if problems:
        raise ConfigError(problems)


def read(
    specs: Iterable[Spec], env: Mapping[str, str], prefix: str
) -> dict[str, tuple[str, object]]:
    """Field → the variable that sets it, and its value, for the settings found in *env*.

    A blank variable without our *prefix* belongs to others and counts as unset.
    """
    found = {}
    for each in specs:
        present = [name for name in each.variables if name in env]
        counting = (name for name in present if name.startswith(prefix) or env[name].strip())
        if name := next(counting, None):
            found[each.field] = (name, each.read(env[name]))
    return found


def find(specs: Iterable[Spec], variables: Iterable[str]) -> Iterator[tuple[str, str, Spec]]:
    """(variable, what stands for `{}` in it, spec) for each variable that one of *specs* names."""
    templates = [(each.variables[0].partition("{}"), each) for each in specs]
    for variable in variables:
        for (head, _, tail), each in templates:
            inner = variable.removeprefix(head).removesuffix(tail)
            if inner and variable == head + inner + tail:
                yield variable, inner, each
                break


def hint(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """The known name that *name* may have been meant to be, as an addition to a message.

    A *prefix* that all names share does not count as likeness.
    """
    ends = [each.removeprefix(prefix) for each in known]
    closest = get_close_matches(name.removeprefix(prefix), ends, n=1)
    return f" (did you mean {prefix}{closest[0]}?)" if closest else ""


def is_loopback(host: str | None) -> bool:
    """Whether *host* is this machine, by address or by one of its own names."""
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost" or (host or "").endswith(".localhost")


def number(low: float, high: float) -> Kind:
    """A number within bounds; NaN and infinity never fit."""
    needs = f"a number from {shown(low)} to {shown(high)}"
    return Kind(needs, _read_number, _between(low, high, int, float))


def seconds(low: float, high: float) -> Kind:
    """A duration within bounds; fractions are welcome."""
    return replace(
        number(low, high), needs=f"a number of seconds from {shown(low)} to {shown(high)}"
    )


def whole(low: int, high: int) -> Kind:
    """An integer within bounds."""
    return Kind(f"a whole number from {low} to {high}", _read_whole, _between(low, high, int))


def choice(allowed: Iterable[str], fold: Callable[[str], str]) -> Kind:
    """One of a few words, written in any case."""
    words = tuple(allowed)
    return Kind(f"one of {', '.join(words)}", lambda text: fold(text.strip()), words.__contains__)


def shown(value: object) -> str:
    """A value as a person would write it."""
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, Mapping):
        return f"{len(value)} tenants" if value else ""
    return "" if value is None else str(value)


def _finding(value: object) -> str:
    if value is None:
        return "is not set"
    if isinstance(value, str) and not value.strip():
        return "is empty"
    return "holds what cannot be used"


def _between(low: float, high: float, *types: type) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        return type(value) in types and low <= cast(float, value) <= high

    return fits


def _read_number(text: str) -> float:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text.strip(), re.ASCII):
        raise ValueError
    return float(text)


def _read_json(text: str) -> object:
    """The JSON value in *text*; an object that names a key twice is refused."""
    return json.loads(text, object_pairs_hook=_without_twins)


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError
    return made


def _read_whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", text.strip(), re.ASCII):
        raise ValueError
    return int(text)


def _is_dsn(value: object) -> bool:
    return isinstance(value, str) and bool(re.match(r"postgres(ql)?://|\s*\w+\s*=", value))


def _is_module_name(value: object) -> bool:
    return isinstance(value, str) and all(
        part.isidentifier() and not iskeyword(part) for part in value.split(".")
    )


def _is_queue_url(value: object) -> bool:
    try:
        url = urlsplit(value if isinstance(value, str) else "")
        usable = url.scheme in ("https", "http") and url.hostname and url.port != 0
    except ValueError:
        return False
    if not usable or "@" in url.netloc or url.query or url.fragment:
        return False
    return bool(re.fullmatch(r"/(\S+/)?[\w-]{1,80}(\.fifo)?/?", url.path, re.ASCII))


def _are_queues(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(queue, str) and queue.strip() and not queue.startswith("${") for queue in value
    )


def _read_queues(text: str) -> object:
    return tuple(part.strip() for part in text.split(",")) if text.strip() else ""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


DSN = Kind(
    "a PostgreSQL connection string, such as postgresql://user:password@host:5432/database",
    str.strip,
    _is_dsn,
)
TOKEN = Kind("any text", str, lambda value: isinstance(value, str))
FAILPOINTS = Kind(
    "places and what happens there, such as scheduler.after_lease=kill,worker.after_handler=stop",
    str.strip,
    _is_text,
)
TEXT = Kind("a URL", str.strip, _is_text)
HOST = Kind("an address or host name, such as 127.0.0.1 or 0.0.0.0", str.strip, _is_text)
MODULE = Kind("a dotted module name, such as myapp.job_handlers", str.strip, _is_module_name)
QUEUE_URL = Kind(
    "the whole URL of the queue, such as "
    "https://sqs.us-east-1.amazonaws.com/123456789012/notifications "
    "(a bare name is not enough; `aws sqs get-queue-url` prints the URL)",
    str.strip,
    _is_queue_url,
)
QUEUES = Kind(
    "a queue URL or queue name, or several separated by commas (text beginning with ${ is a shell "
    "variable that nobody replaced, because an exec-form CMD runs no shell: set the variable "
    "QUEUE_URL and leave --queue out)",
    _read_queues,
    _are_queues,
)
QUOTAS = Kind(
    'a JSON object with each tenant once, such as {"tenant1": {"max_pending_jobs": 100}}',
    _read_json,
    lambda value: isinstance(value, Mapping),
)
TOKENS = Kind(
    'a JSON list, such as [{"name": "shop", "token": "...", "tenant_id": "tenant1", '
    '"scopes": ["enqueue", "read"]}]; sha256 may stand in place of token',
    _read_json,
    lambda value: isinstance(value, list | tuple),
)
LEVEL = choice(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), str.upper)
FORMAT = choice(("text", "json"), str.lower)
SWITCH = choice(("on", "off"), str.lower)


def name_problems(name: str, prefix: str, specs: Iterable[Spec]) -> Iterator[str]:
    """What is wrong with a use case's name: no name, or the beginning of a setting of ours."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]{0,79}", name):
        yield "use case name: needs 1 to 80 letters, digits or underscores"
    words = [spec.variables[0].split("_")[2:] for spec in specs]
    prefixes = {"_".join(each[:end]) for each in words for end in range(1, len(each))}
    if name.upper() in prefixes | {"SQS", "SQS_QUEUE"}:
        yield (
            f"{prefix}{name.upper()}_*: {name!r} cannot name a use case, because settings of the "
            "library begin with that word; give the use case another name"
        )
