"""Message move tasks: dead letters on their way back.

A move takes visible messages out of a dead-letter queue and puts each into the
queue it came from, or all into one given queue, at most so many a second. It
runs on the event loop in small steps; one move at a time per source queue. The
ten latest moves of a source can be listed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import uuid
from collections import deque
from dataclasses import dataclass

from async_jobs.embedded.sqs.message import Message
from async_jobs.embedded.sqs.queue import Queue
from async_jobs.embedded.sqs.refusal import Refused, invalid_value
from async_jobs.embedded.sqs.region import Region

STEP_MESSAGES = 500
LISTED = 10


@dataclass(slots=True, eq=False)
class Move:
    """One message move task."""

    handle: str
    source: Queue
    destination_arn: str | None
    per_second: int | None
    started_at: float
    to_move: int
    moved: int = 0
    status: str = "RUNNING"
    failure: str | None = None

    def describe(self) -> dict[str, object]:
        """The move as ListMessageMoveTasks answers it; only a running one has its handle."""
        seen = {
            "TaskHandle": self.handle if self.status == "RUNNING" else None,
            "Status": self.status,
            "SourceArn": self.source.arn,
            "DestinationArn": self.destination_arn,
            "MaxNumberOfMessagesPerSecond": self.per_second,
            "ApproximateNumberOfMessagesMoved": self.moved,
            "ApproximateNumberOfMessagesToMove": self.to_move,
            "FailureReason": self.failure,
            "StartedTimestamp": int(self.started_at * 1000),
        }
        return {name: value for name, value in seen.items() if value is not None}


class Moves:
    """All moves of the server."""

    def __init__(self, region: Region, loop: asyncio.AbstractEventLoop) -> None:
        self._region = region
        self._loop = loop
        self._by_source: dict[str, deque[Move]] = {}
        self._steps: dict[Move, asyncio.TimerHandle] = {}

    def start(self, source_arn: str, destination_arn: str | None, per_second: int | None) -> Move:
        """Start to move the messages of a dead-letter queue; raises Refused."""
        source = self._queue_of("SourceArn", source_arn)
        if destination_arn is not None:
            self._queue_of("DestinationArn", destination_arn)
        if not self._region.sources_of(source):
            raise invalid_value("SourceArn", "The queue is not the dead-letter queue of another.")
        moves = self._by_source.setdefault(source_arn, deque(maxlen=LISTED))
        if moves and moves[0].status == "RUNNING":
            raise invalid_value("SourceArn", "A task is running for this source already.")
        now = self._region.clock.now()
        move = Move(
            handle=_write_handle(source_arn),
            source=source,
            destination_arn=destination_arn,
            per_second=per_second,
            started_at=now,
            to_move=source.counts(now).visible,
        )
        moves.appendleft(move)
        self._schedule(move, 0.0)
        return move

    def latest(self, source_arn: str, limit: int) -> list[Move]:
        """The latest moves from a queue, newest first; raises ResourceNotFoundException."""
        self._queue_of("SourceArn", source_arn)
        return list(self._by_source.get(source_arn, ()))[:limit]

    def cancel(self, handle: str) -> Move:
        """Stop a running move; what has been moved stays moved. Raises Refused."""
        source_arn = _source_of(handle)
        for move in self.latest(source_arn, LISTED):
            if move.handle == handle and move.status == "RUNNING":
                self._end(move, "CANCELLED")
                return move
        raise Refused("ResourceNotFoundException", "The task does not exist or is not running.")

    def close(self) -> None:
        """Stop every running move."""
        for move in list(self._steps):
            self._end(move, "CANCELLED")

    def _queue_of(self, parameter: str, arn: str) -> Queue:
        queue = self._region.by_arn(arn)
        if queue is None:
            raise Refused(
                "ResourceNotFoundException", f"The resource that {parameter} names does not exist."
            )
        return queue

    def _schedule(self, move: Move, seconds: float) -> None:
        self._steps[move] = self._loop.call_later(seconds, self._step, move)

    def _step(self, move: Move) -> None:
        """Move what may be moved now, and come back for the rest."""
        left = move.to_move - move.moved
        batch = min(left, STEP_MESSAGES if move.per_second is None else 1)
        if not self._move_messages(move, batch):
            return
        if move.moved >= move.to_move:
            self._end(move, "COMPLETED")
        else:
            self._schedule(move, 0.0 if move.per_second is None else 1 / move.per_second)

    def _move_messages(self, move: Move, limit: int) -> bool:
        """Move up to *limit* messages; ends the move and returns False when it cannot go on."""
        now = self._region.clock.now()
        if move.destination_arn and self._region.by_arn(move.destination_arn) is None:
            return self._end(move, "FAILED", "AWS.SimpleQueueService.NonExistentQueue")
        messages = move.source.withdraw(limit, now)
        for at, message in enumerate(messages):
            destination = self._destination_of(message, move)
            if destination is None:
                for kept in messages[at:]:
                    move.source.put_back(kept)
                return self._end(move, "FAILED", "CouldNotDetermineMessageSource")
            destination.redeliver(message, now)
            move.moved += 1
        if len(messages) < limit:
            return self._end(move, "COMPLETED")
        return True

    def _destination_of(self, message: Message, move: Move) -> Queue | None:
        arn = move.destination_arn or message.source_arn
        return self._region.by_arn(arn) if arn else None

    def _end(self, move: Move, status: str, failure: str | None = None) -> bool:
        move.status = status
        move.failure = failure
        step = self._steps.pop(move, None)
        if step is not None:
            step.cancel()
        return False


def _write_handle(source_arn: str) -> str:
    content = {"taskId": str(uuid.uuid4()), "sourceArn": source_arn}
    return base64.b64encode(json.dumps(content).encode()).decode()


def _source_of(handle: str) -> str:
    try:
        content = json.loads(base64.b64decode(handle, validate=True))
        return str(content["sourceArn"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise invalid_value("TaskHandle", "It is not a handle of a message move task.") from None
