"""The picture is well-formed, shows every run, and keeps inside its frame."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from async_jobs.simulation.arrivals import Workload
from async_jobs.simulation.engine import simulate
from async_jobs.simulation.picture import MOST_RUNS, Drawn, draw
from async_jobs.simulation.policies import Policy, Setup

from .made import crowded_workloads, job, workload

SVG = "{http://www.w3.org/2000/svg}"


def drawn(jobs: Workload, capacity: int = 1, policy: Policy = Policy.EDF) -> Drawn:
    figures = simulate(jobs, Setup(capacity=capacity, policy=policy))
    return Drawn(f"{policy}, {capacity} slots", capacity, figures)


@given(crowded_workloads(), st.integers(1, 90))
def test_every_point_is_inside_the_frame(jobs: Workload, capacity: int) -> None:
    text = draw("made", [drawn(jobs, capacity), drawn(jobs, 1)])
    svg = ElementTree.fromstring(text)  # noqa: S314 # our own text

    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    paths = [path.attrib["d"] for path in svg.iter(f"{SVG}path")]
    points = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", "".join(paths))
    assert points
    assert all(0 <= float(x) <= width and 0 <= float(y) <= height for x, y in points)


def test_every_run_has_a_line_in_each_chart_and_a_name() -> None:
    runs = [drawn(workload(job(), job()), policy=policy) for policy in Policy]

    text = draw("made", runs)

    for number, run in enumerate(runs):
        assert text.count(f'class="line run{number}"') == 4
        assert f">{run.label}<" in text


def test_no_more_runs_are_drawn_than_there_are_colours() -> None:
    text = draw("made", [drawn(workload(job()))] * 9)

    assert f"run{MOST_RUNS - 1}" in text
    assert f"run{MOST_RUNS}" not in text


def test_names_are_escaped() -> None:
    assert "a&lt;b &amp; c" in draw("a<b & c", [drawn(workload(job()))])


def test_the_picture_follows_the_reader_s_light_or_dark_mode() -> None:
    assert "@media (prefers-color-scheme:dark)" in draw("made", [drawn(workload(job()))])
