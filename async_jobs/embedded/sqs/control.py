"""The control endpoints of the fault-injecting, counting server.

    GET    /_faults         seed and faults, each with how often it was met and happened
    PUT    /_faults         {"seed": 1, "faults": [{"kind": "throttle", "probability": 0.5}]}
    DELETE /_faults         all faults off
    POST   /_wipe           every message of every queue is lost; the queues stay
    GET    /_requests       how many requests came in, by operation: {"ReceiveMessage": 7}

They exist only when the server was started for it. Other programs drive it
through them; tests in the same process use `SqsServer.faults` and `wipe`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields

from async_jobs.embedded.sqs.faults import Fault, Faults
from async_jobs.embedded.sqs.http import Reply, Request
from async_jobs.embedded.sqs.region import Region

PATHS = ("/_faults", "/_wipe", "/_requests")

_NAMES = {each.name for each in fields(Fault)}


class Control:
    """Answers requests to the control endpoints."""

    def __init__(self, region: Region, faults: Faults, requests: Mapping[str, int]) -> None:
        self._region = region
        self._faults = faults
        self._requests = requests

    def handle(self, request: Request, reply: Reply) -> None:
        """Do what *request* asks and answer with the faults as they are now."""
        match request.method, request.path:
            case "GET", "/_faults":
                pass
            case "GET", "/_requests":
                _answer(reply, 200, dict(self._requests))
                return
            case "PUT", "/_faults":
                try:
                    seed, faults = read_faults(request.content)
                except ValueError as error:
                    _answer(reply, 400, {"error": str(error)})
                    return
                self._faults.replace(faults, seed)
            case "DELETE", "/_faults":
                self._faults.clear()
            case "POST", "/_wipe":
                for queue in self._region:
                    queue.wipe()
            case _:
                known = "GET, PUT, DELETE /_faults, POST /_wipe, GET /_requests"
                _answer(reply, 405, {"error": known})
                return
        _answer(reply, 200, self._faults.describe())


def read_faults(content: bytes) -> tuple[int | None, list[Fault]]:
    """Seed and faults of a PUT; raises ValueError with a text that says what was needed."""
    try:
        wanted = json.loads(content)
    except ValueError:
        raise ValueError("the content is not JSON") from None
    if not isinstance(wanted, dict) or not isinstance(wanted.get("faults", []), list):
        raise ValueError('the content looks like {"seed": 1, "faults": [{"kind": "throttle"}]}')
    seed = wanted.get("seed")
    if seed is not None and not isinstance(seed, int):
        raise ValueError("seed is a whole number")
    return seed, [_read_fault(each) for each in wanted.get("faults", [])]


def _read_fault(values: object) -> Fault:
    if not isinstance(values, dict) or "kind" not in values:
        raise ValueError("a fault is an object with a kind")
    if not _NAMES.issuperset(values):
        raise ValueError(f"a fault has the fields {', '.join(sorted(_NAMES))} and no other")
    try:
        return Fault(**values)
    except TypeError as error:
        raise ValueError("a field of a fault has a wrong type") from error


def _answer(reply: Reply, status: int, answer: dict[str, object]) -> None:
    reply.send(status, json.dumps(answer).encode(), "application/json")
