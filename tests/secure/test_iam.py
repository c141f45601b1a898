"""The shipped IAM policies allow what the code calls, on named queues, and nothing else."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import psycopg
import pytest
from botocore.config import Config
from moving_parts import open_store

from async_jobs.embedded.sqs.faults import Fault, Kind
from async_jobs.embedded.sqs.server import SqsServer
from async_jobs.models import JobStatus
from async_jobs.transport import sqs as transport

from .conftest import ROOT

POLICIES = ROOT / "deploy" / "iam"
CALLERS = {"scheduler.json": "SqsSender", "worker.json": "SqsReceiver"}
QUEUE_ARN = re.compile(r"arn:aws:sqs:[a-z]{2}-[a-z]+-\d:\d{12}:[A-Za-z0-9_-]{1,80}")


def policy(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((POLICIES / name).read_text("utf-8"))
    return found


def actions_called_by(class_name: str) -> set[str]:
    """The IAM actions behind the boto3 calls of one class: a batch needs the single action."""
    tree = ast.parse(inspect.getsource(getattr(transport, class_name)))
    return {
        f"sqs:{node.func.attr.title().replace('_', '').removesuffix('Batch')}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "sqs"
    }


@pytest.fixture
def server() -> Iterator[SqsServer]:
    with SqsServer.in_thread() as server:
        yield server


@pytest.mark.parametrize("name", CALLERS)
def test_a_policy_allows_exactly_what_its_process_calls(name: str) -> None:
    allowed = {action for each in policy(name)["Statement"] for action in each["Action"]}

    assert allowed == actions_called_by(CALLERS[name])


@pytest.mark.parametrize("name", CALLERS)
def test_a_policy_has_no_wildcard_and_names_queues(name: str) -> None:
    document = policy(name)

    assert document.keys() == {"Version", "Statement"}
    assert document["Version"] == "2012-10-17"
    for statement in document["Statement"]:
        assert statement.keys() == {"Sid", "Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        assert "*" not in json.dumps(statement)
        assert all(QUEUE_ARN.fullmatch(each) for each in statement["Resource"])


def test_the_queue_itself_refuses_whoever_comes_without_tls() -> None:
    [statement] = policy("queue-policy.json")["Statement"]

    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert QUEUE_ARN.fullmatch(statement["Resource"])


def test_a_queue_takes_the_advised_attributes_and_its_policy(server: SqsServer) -> None:
    client = boto3.client(
        "sqs",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )
    advised = policy("queue-attributes.json")
    wanted = advised | {"Policy": json.dumps(policy("queue-policy.json"))}

    url = client.create_queue(QueueName="advised", Attributes=wanted)["QueueUrl"]
    found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]

    assert {name: found[name] for name in advised} == advised
    client.close()


async def test_scheduler_and_worker_need_nothing_that_their_policies_do_not_allow(
    server: SqsServer, make_stage: Callable[..., Any], owner_dsn: str
) -> None:
    queue_url = server.create_queue("flow")
    stage = make_stage(queue_url, ASYNC_JOBS_DISPATCH_LEASE_SECONDS="60")
    async with open_store(owner_dsn) as store:
        service = stage.service(store)
        job_ids = [
            (await service.enqueue(tenant_id="t", use_case="flow", type="note", payload={})).job_id
            for _ in range(2)
        ]

        server.faults.replace([deny_all_but("SendMessageBatch", "GetQueueAttributes")], 1)
        scheduler = stage.scheduler()
        await stage.until("all leased", lambda: leased(stage) == len(job_ids))
        stage.stop_all()
        let_leases_last(owner_dsn)
        server.faults.replace([deny_all_but("ReceiveMessage", "DeleteMessageBatch")], 1)
        stage.worker()
        for job_id in job_ids:
            assert (await stage.finished(service.get, job_id)).status is JobStatus.SUCCEEDED
        stage.stop_all()

    assert scheduler.exit_code() == 0
    assert "AccessDenied" not in stage.said()


def deny_all_but(*operations: str) -> Fault:
    return Fault(kind=Kind.ACCESS_DENIED, allow=operations)


def let_leases_last(dsn: str) -> None:
    """Those of a scheduler that is gone end in three seconds; a worker may be slower to start."""
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "UPDATE jobs SET lease_expires_at = now() + interval '1 hour' "
            "WHERE leased_at IS NOT NULL"
        )


def leased(stage: Any) -> int:
    return int(stage.query("SELECT count(*) FROM jobs WHERE leased_at IS NOT NULL")[0][0])
