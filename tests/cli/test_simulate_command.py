"""The `async-jobs simulate` command: the same input gives the same bytes, faults are told."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from moving_parts import environment

PATIENCE_SECONDS = 240
TRACE = """\
run_at,tenant_id,type,run_seconds,delay_tolerance_seconds,priority,failing_attempts,max_attempts
0,acme,send,10,1,0,0,3
0,acme,send,10,1,0,0,3
1,bolt,send,1,5,2,1,3
"""


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "async_jobs.cli.simulate", *words],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE, "utf-8")
    return str(path)


def figures(*words: str) -> list[dict[str, Any]]:
    done = run(*words, "--json")
    assert done.returncode == 0, done.stderr
    runs: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
    return runs


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    words = ("--workload", "steady", "--policy", "recommended", "--policy", "edf", "--tenants")
    outputs = []
    for number, hash_seed in enumerate(("1", "2")):
        svg = tmp_path / f"{number}.svg"
        done = run(*words, "--svg", str(svg), PYTHONHASHSEED=hash_seed)
        assert done.returncode == 0, done.stderr
        outputs.append((done.stdout, svg.read_bytes()))

    assert outputs[0] == outputs[1]
    assert run("--workload", "steady", "--seed", "2").stdout != run("--workload", "steady").stdout


def test_the_same_trace_gives_the_same_bytes(trace: str) -> None:
    one, other = (
        run("--trace", trace, "--json", "--tenants", PYTHONHASHSEED=seed).stdout for seed in "12"
    )

    assert one == other != ""


def test_every_policy_is_run_with_every_capacity(trace: str) -> None:
    runs = figures(
        "--trace", trace, "--capacity=1", "--capacity=3", "--policy=fifo", "--policy=edf"
    )

    assert [(each["policy"], each["capacity"], each["late"]) for each in runs] == [
        ("fifo", 1, 2),
        ("fifo", 3, 0),
        ("edf", 1, 2),
        ("edf", 3, 0),
    ]


def test_without_a_terminal_the_table_is_plain_columns(trace: str) -> None:
    done = run("--trace", trace, "--capacity", "1", "--tenants")

    lines = done.stdout.splitlines()
    assert lines[0] == "trace.csv: 3 jobs of 2 tenants within 1 s, 22 slot seconds of work"
    assert lines[2].startswith("policy       slots  late %")
    assert lines[3].split()[:6] == ["recommended", "1", "66.67", "100.00", "100.00", "2"]
    assert [line.split()[:3] for line in lines if line.startswith(("acme", "bolt"))] == [
        ["acme", "2", "1"],
        ["bolt", "1", "1"],
    ]
    assert "\x1b" not in done.stdout


def test_bounds_and_weights_of_tenants_are_kept(trace: str) -> None:
    runs = figures(
        *("--trace", trace, "--capacity=2", "--max-concurrent=acme=1", "--weight=bolt=2.5")
    )

    assert (runs[0]["late"], runs[0]["quiet_late_share"]) == (1, 0.0)


def test_late_jobs_are_dropped_on_request(trace: str) -> None:
    runs = figures("--trace", trace, "--capacity=1", "--late=drop")

    assert (runs[0]["dropped"], runs[0]["late"]) == (2, 2)


def test_the_fewest_slots_are_found(trace: str) -> None:
    assert figures("--trace", trace, "--need", "0")[0]["capacity"] == 3


def test_a_picture_is_written(trace: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.svg"

    assert run("--trace", trace, "--svg", str(path)).returncode == 0
    assert path.read_text("utf-8").startswith("<svg ")


@pytest.mark.slow
def test_the_picture_of_the_page_is_what_its_command_draws(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "docs/how-to"
    page = (folder / "try-a-policy.md").read_text("utf-8")
    [command] = re.findall(r"^async-jobs simulate (.* --svg) try-a-policy.svg$", page, re.MULTILINE)

    assert run(*command.split(), str(tmp_path / "new.svg")).returncode == 0
    assert (tmp_path / "new.svg").read_bytes() == (folder / "try-a-policy.svg").read_bytes()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "error: give one of --workload, --trace and --export"),
        (("--workload=hog", "--trace=x"), "error: give one of --workload, --trace and --export"),
        (("--workload=sunny",), "error: --workload must be one of steady, noisy"),
        (("--workload=hog", "--need=0.1", "--capacity=3"), "error: --need finds the capacity"),
        (("--workload=hog", "--weight=acme"), "error: --weight must be TENANT=NUMBER"),
        (("--workload=hog", "--weight=acme=nan"), "error: --weight must be TENANT=NUMBER"),
        (("--workload=hog", "--max-concurrent=acme=0"), "error: --max-concurrent must be TENANT="),
        (("--trace=/nowhere/x.csv",), "error: --trace: the file cannot be read as UTF-8 text"),
        (("--export=x.csv",), "error: --export needs --use-case"),
    ],
)
def test_what_cannot_be_done_is_told_and_exits_2(words: tuple[str, ...], told: str) -> None:
    done = run(*words)

    assert done.returncode == 2
    assert done.stderr.startswith(told)
    assert "Traceback" not in done.stderr


def test_a_fault_of_a_trace_is_told_by_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE + "soon,acme,send,1,1,0,0,3\n", "utf-8")

    done = run("--trace", str(path))

    assert done.returncode == 2
    assert done.stderr.startswith("error: --trace: Line 5, column run_at: ")


def test_an_export_can_be_simulated(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO jobs (id, run_at, deadline_at, delay_tolerance, due, status, attempts,"
            " tenant_id, use_case, type, queue, payload, started_at, finished_at)"
            " SELECT gen_random_uuid(), at, at + %(tolerance)s, %(tolerance)s, false, 'succeeded',"
            " 1, 'acme', 'mail', 'send', 'mail', '{}', at, at + interval '2 s'"
            " FROM generate_series(timestamptz '2026-03-01Z', '2026-03-01T00:01:39Z', '1 s') at",
            {"tolerance": timedelta(seconds=5)},
        )
    path = tmp_path / "trace.csv"

    done = run(f"--export={path}", "--use-case=mail", ASYNC_JOBS_DB_DSN=database)

    assert done.returncode == 0, done.stderr
    assert len(path.read_text("utf-8").splitlines()) == 101
    assert figures("--trace", str(path), "--capacity", "2")[0]["late"] == 0
    assert figures("--trace", str(path), "--capacity", "1")[0]["late"] > 50
    to_stdout = run("--export=-", "--use-case=mail", ASYNC_JOBS_DB_DSN=database)
    assert to_stdout.stdout == path.read_text("utf-8")


def test_a_packed_trace_gives_the_same_figures(trace: str, tmp_path: Path) -> None:
    packed = tmp_path / "trace.csv.gz"
    packed.write_bytes(gzip.compress(Path(trace).read_bytes()))

    assert figures("--trace", str(packed)) == figures("--trace", trace)


def test_a_packed_trace_that_was_cut_off_is_told(tmp_path: Path) -> None:
    packed = tmp_path / "trace.csv.gz"
    packed.write_bytes(gzip.compress((TRACE + "2,bolt,send,1,5,2,1,3\n" * 50).encode())[:-8])

    done = run("--trace", str(packed))

    assert done.returncode == 2
    assert "the file cannot be read" in done.stderr
