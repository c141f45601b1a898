"""The queue model alone: what takes minutes or thousands of messages, with time as a number."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from async_jobs.embedded.sqs.attributes import QueueSettings
from async_jobs.embedded.sqs.message import Draft, Message
from async_jobs.embedded.sqs.queue import Counts, Queue
from async_jobs.embedded.sqs.refusal import Refused
from async_jobs.embedded.sqs.region import Region

START = 1_000_000.0


def _queue(**attributes: str) -> Queue:
    name = "model.fifo" if "FifoQueue" in attributes else "model"
    return Queue(name, f"arn:{name}", QueueSettings(name, attributes), START, lambda arn: None)


def _fifo(**attributes: str) -> Queue:
    return _queue(FifoQueue="true", ContentBasedDeduplication="true", **attributes)


def _send(queue: Queue, count: int, group: str | None = None, now: float = START) -> None:
    for number in range(count):
        queue.send(Draft(body=f"{group}{number}", group_id=group), now)


def _groups(messages: list[Message]) -> list[str | None]:
    return [message.draft.group_id for message in messages]


def _all_of(counts: Counts) -> tuple[int, int, int]:
    return counts.visible, counts.in_flight, counts.delayed


def test_a_message_is_forgotten_after_the_retention_period() -> None:
    queue = _queue(MessageRetentionPeriod="60")
    _send(queue, 2)
    _send(queue, 1, now=START + 30)

    assert queue.counts(START + 59).visible == 3
    assert queue.counts(START + 60).visible == 1
    assert queue.receive(10, 30, START + 90) == []


def test_a_message_cannot_be_hidden_for_more_than_twelve_hours_in_all() -> None:
    queue = _queue()
    _send(queue, 1)
    (message,) = queue.receive(1, 43_200, START)
    with pytest.raises(Refused, match="12 hours"):
        queue.change_visibility(queue.handle_of(message), 43_200, START + 1)


def test_deduplication_ends_after_five_minutes() -> None:
    queue = _fifo()
    first = queue.send(Draft(body="a", group_id="g"), START)
    repeated = queue.send(Draft(body="a", group_id="g"), START + 299)
    later = queue.send(Draft(body="a", group_id="g"), START + 300)

    assert repeated is first
    assert later.message_id != first.message_id


def test_a_new_delay_of_a_fifo_queue_holds_for_messages_delayed_already() -> None:
    queue = _fifo(DelaySeconds="900")
    _send(queue, 2, "g")
    queue.change_settings({"DelaySeconds": "5"}, START)

    assert len(queue.receive(10, 30, START + 5)) == 2


def test_a_repeated_receive_attempt_is_answered_anew_once_a_message_was_deleted() -> None:
    queue = _fifo()
    _send(queue, 2, "g")
    first = queue.receive(1, 30, START, attempt_id="attempt")
    queue.delete(queue.handle_of(first[0]), START)
    again = queue.receive(1, 30, START, attempt_id="attempt")

    assert [message.draft.body for message in again] == ["g1"]


def test_a_noisy_group_waits_until_it_is_quiet_again() -> None:
    queue = _queue()
    _send(queue, 100, "noisy")
    noisy = [message for _ in range(4) for message in queue.receive(10, 30, START)]
    _send(queue, 2, "quiet")
    overtaking = queue.receive(1, 30, START)
    for message in noisy[:15]:
        queue.delete(queue.handle_of(message), START)
    in_turn = queue.receive(1, 30, START)

    assert _groups(overtaking) == ["quiet"]
    assert _groups(in_turn) == ["noisy"]


def test_a_noisy_group_is_served_when_nobody_else_waits() -> None:
    queue = _queue()
    _send(queue, 100, "noisy")
    received = [message for _ in range(10) for message in queue.receive(10, 30, START)]

    assert len(received) == 100


def test_messages_without_a_group_are_never_noisy() -> None:
    queue = _queue()
    _send(queue, 100)
    for _ in range(5):
        queue.receive(10, 30, START)
    _send(queue, 1, "quiet")

    assert _groups(queue.receive(1, 30, START)) == [None]


def test_two_noisy_groups_take_turns_by_age() -> None:
    queue = _queue()
    for _ in range(60):
        _send(queue, 1, "a")
        _send(queue, 1, "b")
    received = [message for _ in range(12) for message in queue.receive(10, 30, START)]

    assert Counter(_groups(received)) == {"a": 60, "b": 60}
    assert _groups(received)[-10:] == ["a", "b"] * 5


def test_a_full_queue_hands_out_nothing_more() -> None:
    queue = _queue()
    queue.most_in_flight = 3
    _send(queue, 5)

    assert len(queue.receive(10, 30, START)) == 3
    assert queue.is_full
    assert queue.receive(10, 30, START) == []


@pytest.mark.parametrize("is_fifo", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_random_walk_neither_loses_nor_doubles_a_message(is_fifo: bool, seed: int) -> None:
    """Every message is in one state; it is deleted once or still there at the end."""
    queue = _fifo() if is_fifo else _queue()
    rng = random.Random(seed)
    now, sent, held, deleted = START, 0, [], set()
    for _ in range(3_000):
        now += rng.random()
        match rng.randrange(5):
            case 0 | 1:
                queue.send(Draft(body=str(sent), group_id=rng.choice("abcde")), now)
                sent += 1
            case 2:
                found = queue.receive(rng.randint(1, 10), rng.randint(0, 20), now)
                held += [(queue.handle_of(message), message.draft.body) for message in found]
            case 3 if held:
                handle, body = held.pop(rng.randrange(len(held)))
                try:
                    before = sum(_all_of(queue.counts(now)))
                    queue.delete(handle, now)
                except Refused:
                    continue
                if sum(_all_of(queue.counts(now))) < before:
                    assert body not in deleted
                    deleted.add(body)
            case _ if held:
                try:
                    queue.change_visibility(rng.choice(held)[0], rng.randint(0, 20), now)
                except Refused:
                    continue
    left = set()
    while found := queue.receive(10, 30, now := now + 100):
        for message in found:
            left.add(message.draft.body)
            queue.delete(queue.handle_of(message), now)

    assert left | deleted == {str(number) for number in range(sent)}
    assert not left & deleted
    assert queue.counts(now) == Counts(0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("is_fifo", [False, True])
def test_a_long_backlog_slows_nothing_down(is_fifo: bool) -> None:
    """20,000 messages waiting cost at most a few times what 200 do; a scan would cost 100 times."""
    short, long = _cost(200, is_fifo), _cost(20_000, is_fifo)

    assert long < 10 * short


def _cost(backlog: int, is_fifo: bool) -> float:
    """Processor seconds of 300 sends, receives and deletes beside a backlog; the best of three."""
    queue = _fifo() if is_fifo else _queue()
    for number in range(backlog):
        queue.send(Draft(body=f"backlog{number}", group_id=str(number % 1000)), START)
    best = float("inf")
    for run in range(3):
        began = time.process_time()
        for number in range(300):
            queue.send(Draft(body=f"{run}-{number}", group_id=str(number)), START)
            (message,) = queue.receive(1, 30, START)
            queue.delete(queue.handle_of(message), START)
        best = min(best, time.process_time() - began)
    return best


def test_hiding_a_message_again_and_again_keeps_no_trace() -> None:
    queue = _queue()
    _send(queue, 1)
    (message,) = queue.receive(1, 30, START)
    for _ in range(10_000):
        queue.change_visibility(queue.handle_of(message), 30, START)

    assert len(queue._due) < 2_000


def test_a_queue_cannot_be_its_own_dead_letter_queue() -> None:
    region = Region()
    queue = region.create("loop", {})
    policy = f'{{"deadLetterTargetArn": "{queue.arn}", "maxReceiveCount": 1}}'
    with pytest.raises(Refused, match="does not exist"):
        region.check_redrive(queue, QueueSettings("loop", {"RedrivePolicy": policy}))


def test_a_dead_letter_queue_may_refuse_a_source() -> None:
    region = Region()
    dead = region.create("dead", {"RedriveAllowPolicy": '{"redrivePermission": "denyAll"}'})
    policy = f'{{"deadLetterTargetArn": "{dead.arn}", "maxReceiveCount": 1}}'
    with pytest.raises(Refused, match="does not allow"):
        region.create("source", {"RedrivePolicy": policy})


def test_a_name_is_free_again_a_minute_after_its_queue_was_deleted() -> None:
    region = Region()
    region.delete(region.create("mail", {}))
    region.clock.advance(60)

    assert region.create("mail", {}).name == "mail"


def test_a_dead_letter_keeps_its_age_in_a_standard_queue() -> None:
    region = Region()
    dead = region.create("dead", {"MessageRetentionPeriod": "100"})
    policy = f'{{"deadLetterTargetArn": "{dead.arn}", "maxReceiveCount": 1}}'
    source = region.create("source", {"RedrivePolicy": policy})
    _send(source, 1)
    source.receive(1, 0, START)
    source.receive(1, 0, START + 60)

    assert dead.counts(START + 99).visible == 1
    assert dead.counts(START + 100).visible == 0
