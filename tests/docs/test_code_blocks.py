"""The code in the documentation works."""

from __future__ import annotations

import json
import re

import psycopg
import pytest
from doc_pages import Block, blocks, compiled, run
from psycopg import sql

from async_jobs.config import AsyncJobsConfig
from async_jobs.registry import job_registry
from async_jobs.schemas import EnqueueRequest, EnqueueResponse, JobView, ProblemView

PLACEHOLDER_DSN = "postgresql://..."


def _place(block: Block) -> str:
    return block.place


@pytest.mark.parametrize("block", blocks("python"), ids=_place)
def test_every_python_block_compiles(block: Block) -> None:
    compiled(block)


@pytest.mark.parametrize(
    "block", [one for one in blocks("python", "runs") if one.marker == "runs"], ids=_place
)
async def test_a_block_that_needs_nothing_runs(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_registry, "_handlers", {})

    await run(block)


@pytest.mark.parametrize("block", blocks("python", "runs: database"), ids=_place)
async def test_a_block_that_needs_a_database_runs(
    block: Block, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNC_JOBS_DB_DSN", database)

    await run(block)


@pytest.mark.parametrize("block", blocks("python", "runs: empty database"), ids=_place)
async def test_a_block_that_needs_an_empty_database_runs(block: Block, database: str) -> None:
    with psycopg.connect(database) as conn:
        conn.execute("DROP TABLE jobs CASCADE")

    await run(block, {PLACEHOLDER_DSN: database})

    with psycopg.connect(database) as conn:
        assert conn.execute("SELECT count(*) FROM jobs").fetchall() == [(0,)]


@pytest.mark.parametrize("block", blocks("sql", "runs: sql"), ids=_place)
def test_an_sql_block_runs(block: Block, database: str) -> None:
    with psycopg.connect(database) as conn:
        found = conn.execute(sql.SQL(block.text)).fetchall()  # type: ignore[arg-type] # our text

    assert found == []


@pytest.mark.parametrize("block", blocks("bash", "configures"), ids=_place)
def test_the_exported_variables_make_a_configuration(block: Block) -> None:
    exported = re.findall(r"^export (\w+)=[\"']?(.*?)[\"']?$", block.text, re.MULTILINE)

    config = AsyncJobsConfig.from_env(dict(exported), warn=pytest.fail)

    assert len(config.origin) == len(exported)


@pytest.mark.parametrize("block", blocks("json"), ids=_place)
def test_every_json_block_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("json", "request"), ids=_place)
def test_a_documented_request_is_accepted(block: Block) -> None:
    assert EnqueueRequest.model_validate_json(block.text).tenant_id == "tenant1"


@pytest.mark.parametrize("block", blocks("json", "answer"), ids=_place)
def test_a_documented_answer_has_fields_that_answers_have(block: Block) -> None:
    known = JobView.model_fields.keys() | EnqueueResponse.model_fields.keys()

    assert json.loads(block.text).keys() - known == set()


@pytest.mark.parametrize("block", blocks("json", "problem"), ids=_place)
def test_a_documented_problem_has_the_shape_of_problems(block: Block) -> None:
    problem = ProblemView.model_validate_json(block.text)

    assert json.loads(block.text) == problem.model_dump(exclude_none=True)


@pytest.mark.parametrize("block", blocks("json", "tokens"), ids=_place)
def test_documented_tokens_can_be_configured(block: Block) -> None:
    env = {"ASYNC_JOBS_DB_DSN": PLACEHOLDER_DSN, "ASYNC_JOBS_API_TOKENS": block.text}

    assert AsyncJobsConfig.from_env(env).api_tokens
