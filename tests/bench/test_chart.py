"""Pictures of a run: which there are, how long the bars are, and foreign text in them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from bench.chart import LEFT, RIGHT, WIDTH, draw, pictures

FULL = float(WIDTH - LEFT - RIGHT)


def test_a_picture_shows_the_median_of_the_rounds_of_each_case() -> None:
    lines = [
        {"measure": "drain", "case": "1 worker", "contestant": "async-jobs-pg", "rate": rate}
        for rate in (1_000.0, 9_000.0, 2_000.0)
    ]

    drawn = pictures(lines)

    assert list(drawn) == ["drain"]
    assert ">2,000</text>" in drawn["drain"]
    assert ">9,000</text>" not in drawn["drain"]


def test_bars_are_as_long_as_their_values() -> None:
    drawn = draw("Drain", {"1 worker": {"async-jobs-pg": 400.0, "peer": 100.0}})

    ours, peer = re.findall(r'class="(?:ours|peer)".* width="([\d.]+)"', drawn)

    assert float(ours) == FULL
    assert float(peer) == FULL / 4


def test_foreign_names_are_text_in_a_picture() -> None:
    drawn = draw("Drain", {"<script>": {"a & b": 1.0}})

    ElementTree.fromstring(drawn)  # noqa: S314 - our own text
    assert "<script>" not in drawn
