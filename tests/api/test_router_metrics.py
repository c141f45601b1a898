"""`GET /jobs/metrics`: the figures of the whole system as Prometheus reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx2
from jobs_api import JOB, app_around, caller

from async_jobs import JobService
from async_jobs.access import ApiToken
from async_jobs.core.exposition import FIGURES, OF_ALL, Figures, exposition
from async_jobs.core.overrides import ProcessSeen

DEPLOY = Path(__file__).parents[2] / "deploy"
RUNBOOK = Path(__file__).parents[2] / "docs" / "how-to" / "answer-alerts.md"
LINE = re.compile(r'async_jobs_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? -?[0-9.e+-]+')
METRIC = re.compile(r"async_jobs_(\w+)")


async def test_every_line_is_one_that_prometheus_reads(api: httpx2.AsyncClient) -> None:
    await api.post("/jobs/enqueue", json=JOB | {"delay_tolerance_seconds": 50})

    answer = await api.get("/jobs/metrics")

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert [each for each in lines if not each.startswith("# ") and not LINE.fullmatch(each)] == []
    demand = 'async_jobs_waiting_jobs{use_case="notifications",slack_below_seconds="%s"} %s'
    assert demand % (30, 0) in lines
    assert demand % (60, 1) in lines
    assert 'async_jobs_required_slots{use_case="notifications"} 1' in lines
    assert 'async_jobs_processes{role="scheduler"} 0' in lines
    assert "async_jobs_workers_needed 1" in lines
    assert [each for each in lines if re.fullmatch(r"async_jobs_dead_rows \d+", each)] != []


async def test_what_processes_tell_of_themselves_is_told_of_all(
    service: JobService, api: httpx2.AsyncClient
) -> None:
    told = (
        ("s1", "scheduler", {"tick_seconds": 0.5, "sqs_requests": {"SendMessageBatch": 7}}),
        ("s2", "scheduler", {"tick_seconds": 0.2, "sqs_requests": {"SendMessageBatch": 5}}),
        ("w1", "worker", {"lag_seconds": 0.1, "void_tickets": 3}),
        ("w2", "worker", {"lag_seconds": 1_234_567.5, "void_tickets": 4}),
    )
    for name, role, serves in told:
        await service._desk.steering.report_alive(  # type: ignore[attr-defined] # the store's
            name, role=role, version="1", up_seconds=1.0, serves=serves
        )

    lines = (await api.get("/jobs/metrics")).text.splitlines()

    assert 'async_jobs_tick_seconds{role="scheduler"} 0.5' in lines
    assert 'async_jobs_loop_lag_seconds{role="worker"} 1234567.5' in lines
    assert 'async_jobs_sqs_requests{operation="SendMessageBatch"} 12' in lines
    assert "async_jobs_void_tickets 7" in lines


async def test_a_token_bound_to_a_tenant_is_refused(service: JobService) -> None:
    tokens = [ApiToken.for_text("mine", name="bolt", scopes=["read"], tenant_id="bolt")]
    async with caller(app_around(service, tokens=tokens)) as http:
        answer = await http.get("/jobs/metrics", headers={"Authorization": "Bearer mine"})

    assert answer.status_code == 403


def test_labels_are_escaped() -> None:
    strange = ProcessSeen(
        name="p",
        role='a"b\\c\nd',
        version="1",
        serves={"tick_seconds": 1.0},
        up_seconds=1.0,
        seen_seconds=1.0,
        stop_asked=False,
    )

    text = exposition(Figures(use_cases=[], processes=[strange], workers_needed=0, dead_rows=0))

    assert 'async_jobs_tick_seconds{role="a\\"b\\\\c\\nd"} 1' in text.splitlines()


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    known = {*FIGURES, *OF_ALL}
    alerts = (DEPLOY / "prometheus" / "alerts.yaml").read_text()
    dashboard = json.loads((DEPLOY / "grafana" / "async-jobs.json").read_text())
    asked = " ".join(
        [
            *re.findall(r"expr: '(.+)'", alerts),
            *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]),
        ]
    )

    assert set(METRIC.findall(asked)) <= known
    assert len(dashboard["panels"]) == len({panel["title"] for panel in dashboard["panels"]})


def test_every_alert_has_its_page() -> None:
    alerts = (DEPLOY / "prometheus" / "alerts.yaml").read_text()
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}

    pages = re.findall(r"runbook: docs/how-to/answer-alerts.md#(\S+)", alerts)
    assert len(pages) == alerts.count("- alert:") == 10
    assert set(pages) <= anchors
