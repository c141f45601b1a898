"""All queues of the server: created, found, listed and deleted; one AWS region.

Names a queue by its name, its URL (the host part is not looked at, so that a
proxy may stand in front) or its ARN. Holds the clock: every time in the queue
model comes from here, and tests may move it forward.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from async_jobs.embedded.sqs.attributes import QueueSettings
from async_jobs.embedded.sqs.queue import MOST_IN_FLIGHT, Queue
from async_jobs.embedded.sqs.refusal import Refused, invalid_value, missing

OWNER = "000000000000"
RECREATE_SECONDS = 60.0


class Clock:
    """Seconds since 1970 that never go back; `advance` moves them forward."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


class Region:
    """The queues of one server."""

    def __init__(self, name: str = "us-east-1", *, most_in_flight: int = MOST_IN_FLIGHT) -> None:
        self.name = name
        self.clock = Clock()
        self.on_new_queue: Callable[[Queue], None] = lambda queue: None
        """Called with every queue right after it was created."""
        self._most_in_flight = most_in_flight
        self._queues: dict[str, Queue] = {}
        self._deleted_at: dict[str, float] = {}

    def __iter__(self) -> Iterator[Queue]:
        return iter(list(self._queues.values()))

    def arn_of(self, name: str) -> str:
        return f"arn:aws:sqs:{self.name}:{OWNER}:{name}"

    def create(
        self, name: str, attributes: Mapping[str, str], tags: Mapping[str, str] | None = None
    ) -> Queue:
        """Create a queue, or return the one of this name if the given attributes are the same."""
        settings = QueueSettings(name, attributes)
        known = self._queues.get(name)
        if known is not None:
            different = known.settings.differs_in(attributes)
            if different is None:
                return known
            raise Refused(
                "QueueNameExists",
                "A queue already exists with the same name and a different value for attribute "
                f"{different}.",
            )
        now = self.clock.now()
        if now < self._deleted_at.get(name, float("-inf")) + RECREATE_SECONDS:
            raise Refused(
                "QueueDeletedRecently",
                "You must wait 60 seconds after deleting a queue before you can create another "
                "with the same name.",
            )
        queue = Queue(name, self.arn_of(name), settings, now, self.by_arn)
        self.check_redrive(queue, settings)
        queue.most_in_flight = self._most_in_flight
        queue.tags.update(tags or {})
        self._queues[name] = queue
        self.on_new_queue(queue)
        return queue

    def by_name(self, name: str) -> Queue:
        """The queue of this name; raises QueueDoesNotExist."""
        try:
            return self._queues[name]
        except KeyError:
            raise Refused("QueueDoesNotExist", "The specified queue does not exist.") from None

    def by_url(self, url: str) -> Queue:
        """The queue of this URL; raises InvalidAddress or QueueDoesNotExist."""
        queue = self._queues.get(url.rpartition("/")[2])
        if queue is not None and url.endswith(f"/{OWNER}/{queue.name}"):
            return queue
        if not url:
            raise missing("QueueUrl")
        path = urlsplit(url).path if "//" in url else url
        if path.count("/") != 2 and "/" in url:
            raise Refused("InvalidAddress", "The address is not that of a queue.")
        raise Refused("QueueDoesNotExist", "The specified queue does not exist.")

    def by_arn(self, arn: str) -> Queue | None:
        queue = self._queues.get(arn.rpartition(":")[2])
        return queue if queue is not None and queue.arn == arn else None

    def delete(self, queue: Queue) -> None:
        """Remove *queue* with its messages; its name is free again after 60 s."""
        queue.wipe()
        del self._queues[queue.name]
        self._deleted_at[queue.name] = self.clock.now()
        queue.on_change()

    def sources_of(self, target: Queue) -> list[Queue]:
        """The queues whose dead letters go to *target*."""
        return [
            queue
            for queue in self
            if queue.settings.redrive and queue.settings.redrive.target_arn == target.arn
        ]

    def check_redrive(self, queue: Queue, settings: QueueSettings) -> None:
        """Raise InvalidParameterValue if dead letters of *queue* cannot go where *settings* say."""
        if settings.redrive is None:
            return
        target = self.by_arn(settings.redrive.target_arn)
        if target is None or target is queue:
            raise invalid_value("RedrivePolicy", "The dead-letter target does not exist.")
        if target.settings.is_fifo != settings.is_fifo:
            raise invalid_value("RedrivePolicy", "The dead-letter target is of another type.")
        if not target.settings.allows_source(queue.arn):
            raise invalid_value(
                "RedrivePolicy", "The dead-letter target does not allow this queue."
            )
