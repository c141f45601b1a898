"""Run the local SQS server as a process: `python -m async_jobs.embedded.sqs`.

Prints its URL on one line when it is ready, and serves until SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from async_jobs.embedded.sqs.refusal import Refused
from async_jobs.embedded.sqs.server import SqsServer


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m async_jobs.embedded.sqs",
        description="A local SQS server. Everything is in memory; a restart is an empty server.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument(
        "--queue", action="append", default=[], metavar="NAME", help="create this queue; repeatable"
    )
    parser.add_argument(
        "--faults", action="store_true", help="open /_faults, /_wipe and /_requests"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    server = SqsServer(
        arguments.port, host=arguments.host, faults=arguments.faults, seed=arguments.seed
    )
    async with server:
        for name in arguments.queue:
            server.create_queue(name)
        sys.stdout.write(f"{server.endpoint_url}\n")
        sys.stdout.flush()
        await stopping.wait()


def main() -> int:
    """Serve until told to stop; 1 if the server could not start."""
    try:
        asyncio.run(_serve(_arguments()))
    except (OSError, Refused) as error:
        sys.stderr.write(f"The local SQS server cannot start: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
