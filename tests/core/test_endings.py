"""A worker tells nothing while all is well, and the whole truth about flows that fail."""

from __future__ import annotations

from async_jobs.core.endings import LOOK_EVERY_SECONDS, Count, Endings, FlowKey, Sign, Tally

MAIL = FlowKey("mail", "acme", "send")
PUSH = FlowKey("mail", "bolt", "push")


def tally(*signs: tuple[FlowKey, Sign]) -> Tally:
    made = Tally()
    for flow, sign in signs:
        made.add(flow, sign)
    return made


def looked(made: Tally, *watched: FlowKey, at: float = 0.0) -> Tally:
    """A tally that has just looked and found these flows to be watched."""
    made.told(Endings(), watched, at=at)
    return made


def test_an_idle_worker_tells_nothing_and_asks_nothing() -> None:
    assert Tally().take(at=1e9) is None


def test_successes_alone_are_no_reason_to_write() -> None:
    made = looked(Tally())
    made.add(MAIL, Sign.WORKS)

    assert made.take(at=LOOK_EVERY_SECONDS / 2) is None
    assert made.take(at=LOOK_EVERY_SECONDS) == Endings()


def test_a_failure_is_told_with_the_successes_before_it() -> None:
    made = tally((MAIL, Sign.WORKS), (MAIL, Sign.FAILS), (PUSH, Sign.WORKS))

    assert made.take(at=0.0) == Endings({MAIL: Count(ended=2, failed=1)})


def test_a_flow_that_fails_elsewhere_is_told_though_it_works_here() -> None:
    """Or one broken worker of ten would shut what works on the other nine."""
    made = looked(Tally(), MAIL)
    made.add(MAIL, Sign.WORKS)
    made.add(PUSH, Sign.WORKS)

    assert made.take(at=0.1) == Endings({MAIL: Count(ended=1)})


def test_a_flow_that_is_watched_no_more_is_told_no_more() -> None:
    made = looked(looked(Tally(), MAIL), at=1.0)
    made.add(MAIL, Sign.WORKS)

    assert made.take(at=1.1) is None


def test_what_was_told_is_not_told_again() -> None:
    made = tally((MAIL, Sign.FAILS))
    endings = made.take(at=0.0)
    assert endings is not None
    made.add(MAIL, Sign.FAILS)
    made.told(endings, [MAIL], at=0.0)

    assert made.take(at=1.0) == Endings({MAIL: Count(1, 1)})
    assert made.take(at=1.0) is None


def test_what_could_not_be_told_is_told_with_the_next_report() -> None:
    made = tally((MAIL, Sign.FAILS), (MAIL, Sign.PRESSED))
    endings = made.take(at=0.0)
    assert endings is not None
    made.add(MAIL, Sign.FAILS)
    made.put_back(endings)

    assert made.take(at=1.0) == Endings({MAIL: Count(2, 2)}, frozenset({"mail"}))


def test_backpressure_is_told_once_for_a_use_case_and_counts_as_no_ending() -> None:
    made = tally((MAIL, Sign.PRESSED), (PUSH, Sign.PRESSED))

    endings = made.take(at=0.0)

    assert endings == Endings({}, frozenset({"mail"}))
    assert endings is not None
    assert endings.use_cases_to_wake == {"mail"}


def test_a_probe_that_works_is_told_at_once() -> None:
    made = looked(Tally())
    made.add(MAIL, Sign.WORKS, probe=True)

    endings = made.take(at=0.1)

    assert endings == Endings({MAIL: Count(1, 0, probe_succeeded=True)})
    assert endings is not None
    assert endings.use_cases_to_wake == {"mail"}


def test_a_probe_that_fails_is_a_failure_like_any_other() -> None:
    made = Tally()
    made.add(MAIL, Sign.FAILS, probe=True)

    assert made.take(at=0.0) == Endings({MAIL: Count(1, 1)})


def test_a_worker_that_works_well_keeps_no_counts() -> None:
    made = Tally()
    for number in range(1_000):
        made.add(MAIL._replace(tenant_id=str(number)), Sign.WORKS)
    looked(made)

    assert made.use_cases == set()
