"""Reads the pages of the documentation: their code blocks, markers and links.

A block says by a comment in the line above its fence what a test does with it:

    <!-- runs -->                  executed
    <!-- runs: database -->        executed, with ASYNC_JOBS_DB_DSN naming a migrated database
    <!-- runs: empty database -->  the same, with a database that has no schema yet
    <!-- runs: sql -->             executed as a statement on a migrated database

Other markers are used by the test that looks for them.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

_FENCE = re.compile(
    r"^(?:<!-- (?P<marker>[\w: ]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced code block."""

    page: str
    line: int
    language: str
    marker: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page that people read."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def name(page: Path) -> str:
    """The page's path from the root."""
    return page.relative_to(ROOT).as_posix()


def blocks(language: str, marker: str = "") -> list[Block]:
    """The blocks in *language* whose marker begins with *marker*."""
    return [
        block
        for page in pages()
        for block in _blocks_of(page)
        if block.language == language and block.marker.startswith(marker)
    ]


def _blocks_of(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(
            page=name(page),
            line=text.count("\n", 0, found.start("text")) + 1,
            language=found["language"],
            marker=found["marker"] or "",
            text=found["text"],
        )
        for found in _FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def compiled(block: Block, text: str | None = None) -> Any:
    """The block as code; `await` may stand at its top level."""
    source = "\n" * (block.line - 1) + (text or block.text)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compile(source, block.page, "exec", flags=flags, dont_inherit=True)


async def run(block: Block, replace: dict[str, str] | None = None) -> dict[str, Any]:
    """Execute the block, with texts replaced; the names it made."""
    text = block.text
    for old, new in (replace or {}).items():
        text = text.replace(old, new)
    names: dict[str, Any] = {"__name__": "documentation"}
    code = compiled(block, text)
    answer = eval(code, names)  # noqa: S307 # our own documentation
    if code.co_flags & inspect.CO_COROUTINE:
        await answer
    return names
