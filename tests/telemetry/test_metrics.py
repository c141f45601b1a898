"""Events become metrics where there is a meter provider, and nothing at all elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from async_jobs.core.slo import Slack
from async_jobs.telemetry import events as ev
from async_jobs.telemetry.bus import Bus
from async_jobs.telemetry.metrics import COUNTERS, GAUGES, HISTOGRAMS, MetricsListener

FACTS: dict[str, Any] = {
    "job_id": uuid4(),
    "tenant_id": "acme",
    "use_case": "mail",
    "type": "send",
    "queue": "mail-queue",
}


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    made = MeterProvider([reader], shutdown_on_exit=False)
    yield made
    made.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    """By instrument: the labels and the value of each series; of a histogram its sum."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: [
            (dict(point.attributes or {}), getattr(point, "value", getattr(point, "sum", None)))
            for point in metric.data.data_points
        ]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def hear(provider: MeterProvider, *events: ev.Event, by_tenant: bool = False) -> None:
    bus = Bus(MetricsListener(provider.get_meter("test"), by_tenant=by_tenant).hear)
    for event in events:
        bus.emit(event)


def test_a_job_is_counted_and_measured_at_every_stop(
    provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    slack = Slack("acme", 4.0, 10.0)
    hear(
        provider,
        ev.JobEnqueued(**FACTS),
        ev.JobsLeased(use_case="mail", sent=1, failed=0, in_flight=3, capacity=9, slacks=[slack]),
        ev.JobStarted(**FACTS, waited_seconds=7.0, lateness_seconds=2.0, is_first=True),
        ev.JobSucceeded(**FACTS, ran_seconds=5.0),
    )

    told = points(reader)
    mail = {"use_case": "mail"}
    assert sorted(told["async_jobs.jobs"], key=str) == [
        ({**mail, "move": move}, 1) for move in ("enqueued", "started", "succeeded")
    ]
    assert told["async_jobs.promises"] == [({**mail, "kept": "no"}, 1)]
    assert told["async_jobs.wait"] == [(mail, 7.0)]
    assert told["async_jobs.lateness"] == [(mail, 2.0)]
    assert told["async_jobs.slack"] == [(mail, 4.0)]
    assert told["async_jobs.run"] == [(mail, 5.0)]
    assert (told["async_jobs.in_flight"], told["async_jobs.capacity"]) == ([(mail, 3)], [(mail, 9)])


def test_what_goes_wrong_is_counted(provider: MeterProvider, reader: InMemoryMetricReader) -> None:
    hear(
        provider,
        ev.LeaseLost(**FACTS, ran_seconds=1.0),
        ev.JobRescued(**FACTS, worker="w", dead=False),
        ev.SendFailed(queue="mail-queue", messages=4, reason="Throttled"),
        ev.LoopFailed(loop="intake 1", error=OSError(), failures=1, retry_in_seconds=1.0),
        ev.OverloadRefused(use_case="mail", tenant_id="acme", jobs=6, retry_after_seconds=1.0),
    )

    told = {name: value for name, [(_, value)] in points(reader).items()}
    assert told == {
        "async_jobs.leases.lost": 1,
        "async_jobs.jobs.rescued": 1,
        "async_jobs.sends.failed": 4,
        "async_jobs.loops.failed": 1,
        "async_jobs.enqueues.refused": 6,
    }


def test_figures_that_no_event_carries_are_taken(
    provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    listener = MetricsListener(provider.get_meter("test"))
    listener.measure("async_jobs.tick", 0.5, loop="dispatch of mail")
    listener.measure("async_jobs.sqs.requests", 2, operation="SendMessageBatch")
    listener.measure("async_jobs.workers.needed", 4)

    assert points(reader) == {
        "async_jobs.tick": [({"loop": "dispatch of mail"}, 0.5)],
        "async_jobs.sqs.requests": [({"operation": "SendMessageBatch"}, 2)],
        "async_jobs.workers.needed": [({}, 4)],
    }


def test_a_figure_of_no_instrument_hurts_nobody(
    provider: MeterProvider, caplog: pytest.LogCaptureFixture
) -> None:
    MetricsListener(provider.get_meter("test")).measure("async_jobs.mood", 1.0)

    assert "async_jobs.mood" in caplog.text


@pytest.mark.parametrize(("by_tenant", "tenants"), [(False, [None]), (True, ["acme"])])
def test_tenants_are_a_label_only_on_request(
    provider: MeterProvider, reader: InMemoryMetricReader, by_tenant: bool, tenants: list[Any]
) -> None:
    hear(provider, ev.JobEnqueued(**FACTS), by_tenant=by_tenant)

    told = points(reader)["async_jobs.jobs"]
    assert [labels.get("tenant_id") for labels, _ in told] == tenants


def test_every_instrument_says_what_it_measures() -> None:
    texts = [*COUNTERS.values(), *GAUGES.values(), *(text for text, _ in HISTOGRAMS.values())]

    assert all(text.endswith(".") for text in texts)


@pytest.mark.parametrize(
    ("setup", "subscribed"),
    [
        ("", "False False True"),
        ("import opentelemetry.metrics", "False True True"),
        (
            "from opentelemetry import metrics; from opentelemetry.sdk.metrics import "
            "MeterProvider; metrics.set_meter_provider(MeterProvider())",
            "True True False",
        ),
    ],
    ids=["not loaded", "no provider", "a provider"],
)
def test_nothing_is_subscribed_or_loaded_without_a_meter_provider(
    setup: str, subscribed: str
) -> None:
    program = (
        f"{setup}\nimport sys\nfrom async_jobs.telemetry.bus import Bus\n"
        "from async_jobs.telemetry.metrics import subscribe_if_configured\n"
        "bus = Bus()\n"
        "print(subscribe_if_configured(bus), 'opentelemetry' in sys.modules, bus.measure is None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.strip() == subscribed
