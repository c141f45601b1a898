"""The files that deploy the example: what they start exists, and stops as it should."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from plain_yaml import read_plain_yaml

from async_jobs import AsyncJobsConfig

EXAMPLES = Path(__file__).parents[2] / "examples"
DOCKERFILES = sorted(EXAMPLES.glob("Dockerfile.*"))
COMPOSE = read_plain_yaml((EXAMPLES / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
WORKERS = {name: service for name, service in OURS.items() if name.endswith("worker")}
TASK = json.loads((EXAMPLES / "task-definition.json").read_text())


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) in order, with continued lines joined and comments left out."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    pairs = [line.partition(" ") for line in lines if line.strip()]
    return [(name.upper(), rest.strip()) for name, _, rest in pairs]


def command_of(dockerfile: Path) -> list[str]:
    """The CMD, which must be in exec form: a JSON list of texts."""
    (command,) = [rest for name, rest in instructions(dockerfile) if name == "CMD"]
    found = json.loads(command)
    assert isinstance(found, list)
    return found


def shared_environment() -> dict[str, str]:
    lines = (EXAMPLES / "compose.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    return shared_environment() | (service.get("environment") or {})


def commands() -> list[list[str]]:
    of_services = [service["command"] for service in SERVICES.values() if "command" in service]
    return [*map(command_of, DOCKERFILES), *of_services]


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def test_there_is_a_dockerfile_for_every_part() -> None:
    names = {path.suffix for path in DOCKERFILES}

    assert names == {".api", ".mail", ".scheduler", ".worker"}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.suffix)
def test_an_image_starts_from_a_slim_python_and_ends_as_a_user_without_rights(
    dockerfile: Path,
) -> None:
    found = instructions(dockerfile)
    images = [rest.split()[0] for name, rest in found if name == "FROM"]

    assert set(images) == {"python:3.13-slim"}
    assert [rest for name, rest in found if name == "USER"][-1] == "10001"
    assert [name for name, _ in found][-1] == "CMD"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.suffix)
def test_an_image_copies_only_what_exists(dockerfile: Path) -> None:
    for name, rest in instructions(dockerfile):
        if name == "COPY" and not rest.startswith("--from"):
            for source in shlex.split(rest)[:-1]:
                assert (EXAMPLES.parent / source).exists(), source


def test_no_command_hopes_for_a_shell_that_replaces_variables() -> None:
    words = [word for command in commands() for word in command]

    assert not [word for word in words if "$" in word]
    assert not [word for word in words if word in ("sh", "bash", "-c")]


def test_every_command_names_a_program_that_an_installation_brings() -> None:
    scripts = {entry.name for entry in entry_points(group="console_scripts")}
    for command in commands():
        if command[0] == "python":
            assert importlib.util.find_spec(command[2]), command
        else:
            assert command[0] in scripts, command


def test_the_compose_file_names_dockerfiles_that_exist() -> None:
    for service in OURS.values():
        context = EXAMPLES / service["build"]["context"]

        assert (context / service["build"]["dockerfile"]).resolve() in DOCKERFILES


def test_the_compose_file_uses_the_database_it_is_tested_with() -> None:
    assert SERVICES["postgres"]["image"] == "postgres:18"
    assert [name for name, service in SERVICES.items() if "image" in service] == ["postgres"]


def test_every_service_waits_only_for_services_that_can_say_they_are_healthy() -> None:
    for service in SERVICES.values():
        for name, needed in (service.get("depends_on") or {}).items():
            assert needed == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[name]


def test_the_shared_environment_is_a_configuration_without_a_warning() -> None:
    warned: list[str] = []
    config = AsyncJobsConfig.from_env(shared_environment(), warn=warned.append)

    assert warned == []
    assert {name for name, each in config.use_cases.items() if each.uses_sqs} == {
        "notifications",
        "message_labeling",
    }


def test_the_sqs_server_has_every_queue_that_is_used() -> None:
    command = SERVICES["sqs"]["command"]
    queues = {command[at + 1] for at, word in enumerate(command) if word == "--queue"}
    config = AsyncJobsConfig.from_env(shared_environment())

    assert {each.queue for each in config.use_cases.values()} == queues


def test_every_queue_has_a_worker_that_reads_it_from_its_environment() -> None:
    config = AsyncJobsConfig.from_env(shared_environment())
    workers = [AsyncJobsConfig.from_env(environment_of(each)) for each in WORKERS.values()]
    urls = {url for worker in workers for url in worker.worker_queue}

    assert {each.sqs_queue_url for each in config.use_cases.values()} == urls


def test_every_service_has_its_time_to_stop_and_a_worker_longer_than_its_attempts_have() -> None:
    assert all("stop_grace_period" in service for service in SERVICES.values())
    for service in WORKERS.values():
        grace = float(environment_of(service)["ASYNC_JOBS_WORKER_GRACE_SECONDS"])

        assert seconds(service["stop_grace_period"]) >= grace + 5


def test_only_the_api_is_reachable_and_only_from_this_machine() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert ports == {"api": ["127.0.0.1:8000:8000"]}


def test_the_task_definition_is_one_that_ecs_would_take() -> None:
    ecs = botocore.session.get_session().get_service_model("ecs")
    shape = ecs.operation_model("RegisterTaskDefinition").input_shape
    assert shape is not None
    report = ParamValidator().validate(TASK, shape)

    assert report.generate_report() == ""


def test_the_task_takes_secrets_from_secrets_manager_and_has_time_to_stop() -> None:
    (worker,) = TASK["containerDefinitions"]
    environment = {each["name"]: each["value"] for each in worker["environment"]}
    secrets = {each["name"]: each["valueFrom"] for each in worker["secrets"]}

    assert worker["stopTimeout"] == 120
    assert float(environment["ASYNC_JOBS_WORKER_GRACE_SECONDS"]) < 120
    assert secrets["ASYNC_JOBS_DB_DSN"].startswith("arn:aws:secretsmanager:")
    assert secrets.keys().isdisjoint(environment)
    assert worker["user"] == "10001"


def test_the_environment_of_the_task_is_a_configuration_without_a_warning() -> None:
    (worker,) = TASK["containerDefinitions"]
    environment = {each["name"]: each["value"] for each in worker["environment"]}
    warned: list[str] = []
    dsn = "postgresql://user:password@db.internal.example:5432/jobs"
    config = AsyncJobsConfig.from_env(environment | {"ASYNC_JOBS_DB_DSN": dsn}, warn=warned.append)

    assert warned == []
    assert config.worker_queue == (environment["QUEUE_URL"],)
    assert config.use_cases["notifications"].sqs_queue_url == environment["QUEUE_URL"]


@pytest.mark.parametrize(
    "text", ["a: &x 1", "a: {b: 1}", "a: 1\na: 2", "a:\n  - b: 1", "a: |\n  text", "\ta: 1"]
)
def test_the_reader_refuses_yaml_that_it_would_get_wrong(text: str) -> None:
    with pytest.raises(ValueError, match=r"plain|twice|understood"):
        read_plain_yaml(text)


def test_the_readme_of_the_examples_tells_of_every_file_and_of_no_other() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    linked = set(re.findall(r"\]\(([^)]+)\)", readme)) | {path.name for path in DOCKERFILES}
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()}

    assert linked == files - {"__init__.py", "README.md"}
