"""The files for KEDA and ECS say what those read, and name what we answer."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import botocore.session
import yaml
from botocore.validate import ParamValidator

from async_jobs.api.metrics import create_metrics_router
from async_jobs.cli.autoscaling import told
from async_jobs.core.scaling import Scaling
from async_jobs.schemas import ScalingView

DEPLOY = Path(__file__).parents[2] / "deploy"
SCALED_OBJECT = {
    "scaleTargetRef", "pollingInterval", "cooldownPeriod", "initialCooldownPeriod",
    "idleReplicaCount", "minReplicaCount", "maxReplicaCount", "fallback", "advanced", "triggers",
}  # fmt: skip
"""https://keda.sh/docs/latest/reference/scaledobject-spec/"""
TRIGGER = {"type", "name", "metricType", "useCachedMetrics", "metadata", "authenticationRef"}
METRICS_API = {
    "url", "valueLocation", "targetValue", "activationTargetValue", "format", "unsafeSsl",
    "authMode", "method", "keyParamName",
}  # fmt: skip
"""https://keda.sh/docs/latest/scalers/metrics-api/; KEDA takes no value but a text there."""
SCRIPT = DEPLOY / "ecs" / "publish-workers-needed.sh"


def test_keda_reads_a_figure_that_the_endpoint_answers() -> None:
    objects = {each["kind"]: each for each in yaml.safe_load_all(_text("keda.yaml"))}
    [trigger] = objects["ScaledObject"]["spec"]["triggers"]
    metadata = trigger["metadata"]
    url = urlsplit(metadata["url"])
    [route] = create_metrics_router(lambda: None, require_auth_token=False).routes  # type: ignore[arg-type] # nobody calls it

    assert trigger["type"] == "metrics-api"
    assert (trigger["metricType"], metadata["targetValue"]) == ("AverageValue", "1")
    assert metadata["valueLocation"] in ScalingView.model_fields
    assert url.path == route.path  # type: ignore[attr-defined] # a route of ours
    assert set(parse_qs(url.query)) <= {"slots_per_worker", "lead_seconds", "within_seconds"}


def test_keda_knows_every_field_and_gets_texts() -> None:
    objects = {each["kind"]: each for each in yaml.safe_load_all(_text("keda.yaml"))}
    scaled = objects["ScaledObject"]
    [trigger] = scaled["spec"]["triggers"]
    metadata = trigger["metadata"]

    assert {each["apiVersion"] for each in objects.values()} == {"v1", "keda.sh/v1alpha1"}
    assert set(scaled["spec"]) <= SCALED_OBJECT
    assert scaled["spec"].keys() >= {"scaleTargetRef", "triggers"}
    assert 1 <= scaled["spec"]["minReplicaCount"] <= scaled["spec"]["maxReplicaCount"]
    assert set(scaled["spec"]["advanced"]) <= {
        "restoreToOriginalReplicaCount", "horizontalPodAutoscalerConfig", "scalingModifiers"
    }  # fmt: skip
    assert set(trigger) <= TRIGGER
    assert trigger["metricType"] in ("AverageValue", "Value")
    assert set(metadata) <= METRICS_API
    assert metadata.keys() >= {"url", "valueLocation", "targetValue"}
    assert all(isinstance(text, str) for text in metadata.values())
    assert metadata["authMode"] in ("apiKey", "basic", "tls", "bearer")


def test_keda_finds_the_token_it_shows() -> None:
    objects = {each["kind"]: each for each in yaml.safe_load_all(_text("keda.yaml"))}
    [trigger] = objects["ScaledObject"]["spec"]["triggers"]
    [reference] = objects["TriggerAuthentication"]["spec"]["secretTargetRef"]

    assert trigger["metadata"]["authMode"] == "bearer"
    assert (
        trigger["authenticationRef"]["name"] == objects["TriggerAuthentication"]["metadata"]["name"]
    )
    assert reference["name"] == objects["Secret"]["metadata"]["name"]
    assert reference["key"] in objects["Secret"]["stringData"]
    assert reference["parameter"] == "token"


def test_aws_accepts_the_shape_of_the_policy() -> None:
    model = botocore.session.get_session().get_service_model("application-autoscaling")
    shape = model.operation_model("PutScalingPolicy").input_shape
    policy = json.loads(_text("ecs/target-tracking.json"))

    report = ParamValidator().validate(policy, shape)

    assert not report.has_errors(), report.generate_report()


def test_the_policy_and_the_script_speak_of_one_metric() -> None:
    tracking = json.loads(_text("ecs/target-tracking.json"))[
        "TargetTrackingScalingPolicyConfiguration"
    ]
    needed = tracking["CustomizedMetricSpecification"]["Metrics"][0]["MetricStat"]["Metric"]
    script = SCRIPT.read_text()

    assert f"--namespace {needed['Namespace']} --metric-name {needed['MetricName']}" in script
    assert needed["Dimensions"][0]["Name"] in script
    assert needed["Dimensions"][0]["Value"] in script


def test_the_script_reads_the_first_line_of_the_command() -> None:
    subprocess.run(["sh", "-n", SCRIPT], check=True, timeout=10)
    pattern = re.search(r"sed -n '([^']+)'", SCRIPT.read_text())
    found = Scaling(
        workers=7,
        slots=64,
        slots_per_worker=10,
        within_seconds=600,
        lead_seconds=60,
        use_cases=(),
    )

    assert pattern is not None
    read = subprocess.run(
        ["sed", "-n", pattern[1]],
        input="\n".join(told(found)),
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    assert read.stdout.strip() == "7"


def _text(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")
