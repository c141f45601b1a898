"""Requests as fast as they are answered: a process of its own, so that its CPU time is not ours.

    python -m bench.load URL CONNECTIONS REQUESTS JOBS        BENCH_TOKEN holds the token

Every connection is kept alive and asks again as soon as it has its answer. JOBS is how many jobs
a request holds: 0 asks the endpoint for one job. Prints {"seconds": S, "refused": N, "refusal":
"the last", "p50_ms": M, "p99_ms": M}. Little of the standard library only: what it uses the API
cannot have.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

TOKEN = os.environ.get("BENCH_TOKEN", "")
HEAD = (
    "POST /jobs/{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
)


def request(number: int, jobs: int, host: str) -> bytes:
    """The bytes of request *number*."""
    one = {"tenant_id": "t1", "use_case": "bench", "type": "noop", "payload": {"i": number, "t": 0}}
    asked = {"jobs": [one] * jobs} if jobs else one
    body = json.dumps(asked, separators=(",", ":"))
    path = "enqueue-many" if jobs else "enqueue"
    return (HEAD.format(path=path, host=host, token=TOKEN, length=len(body)) + body).encode()


class Connection:
    """Asks and reads the answer, one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, content: bytes) -> tuple[int, bytes]:
        """The answer: its status and its content."""
        self._writer.write(content)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        _, _, rest = head.partition(b"content-length:")
        answer = await self._reader.readexactly(int(rest.partition(b"\r\n")[0]))
        return int(head[9:12]), answer

    def close(self) -> None:
        self._writer.close()


class Load:
    """What all connections share."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self.refused = 0
        self.refusal = ""
        self.took: list[float] = []

    async def ask_all(self, connection: Connection) -> None:
        """Ask until nothing is left to be asked."""
        for content in self._requests:
            began = time.perf_counter()
            status, answer = await connection.ask(content)
            self.took.append(time.perf_counter() - began)
            if status != 201:
                self.refused += 1
                self.refusal = f"{status} {answer.decode(errors='replace')}"
        connection.close()


async def run(url: str, connections: int, requests: int, jobs: int) -> dict[str, float | str]:
    """What *requests* requests took, without opening the connections."""
    place = urlsplit(url)
    opened = [
        Connection(*await asyncio.open_connection(place.hostname, place.port))
        for _ in range(connections)
    ]
    load = Load(iter([request(number, jobs, place.netloc) for number in range(requests)]))
    began = time.perf_counter()
    await asyncio.gather(*map(load.ask_all, opened))
    seconds = time.perf_counter() - began
    took = sorted(load.took)
    return {
        "seconds": seconds,
        "refused": load.refused,
        "refusal": load.refusal,
        "p50_ms": 1_000 * took[len(took) // 2],
        "p99_ms": 1_000 * took[len(took) * 99 // 100],
    }


def main() -> None:
    url, *counts = sys.argv[1:]
    print(json.dumps(asyncio.run(run(url, *map(int, counts)))))


if __name__ == "__main__":
    main()
