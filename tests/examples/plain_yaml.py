"""Reads the part of YAML that the example's compose file keeps to, and refuses the rest.

Mappings by indentation, lists of plain texts, lists in JSON, comments on lines
of their own. No YAML library is among the project's dependencies, and a file
that stays within this is also easier on its reader.
"""

from __future__ import annotations

import json
import re
from typing import Any

_LINE = re.compile(r"(?P<indent> *)(?:(?P<key>[\w.-]+):(?: (?P<value>\S.*))?|- (?P<item>\S.*))")
_SPECIAL = ("&", "*", "!", "|", ">", "{", "%", "@", "`", "'")


def read_plain_yaml(text: str) -> dict[str, Any]:
    """*text* as nested dicts and lists; raises ValueError for anything beyond the subset."""
    lines = [
        line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")
    ]
    found, rest = _block(lines, 0)
    if rest or not isinstance(found, dict):
        raise ValueError(f"not understood from here: {rest[:1]}")
    return found


def _block(lines: list[str], indent: int) -> tuple[dict[str, Any] | list[Any], list[str]]:
    """The mapping or list whose lines begin at *indent*, and the lines after it."""
    mapping: dict[str, Any] = {}
    items: list[Any] = []
    while lines:
        part = _LINE.fullmatch(lines[0])
        if part is None:
            raise ValueError(f"not plain YAML: {lines[0]!r}")
        if len(part["indent"]) != indent:
            break
        lines = lines[1:]
        if part["item"]:
            items.append(_scalar(part["item"]))
        elif part["key"] in mapping:
            raise ValueError(f"twice: {part['key']!r}")
        elif part["value"]:
            mapping[part["key"]] = _scalar(part["value"])
        else:
            mapping[part["key"]], lines = _nested(lines, indent)
    if mapping and items:
        raise ValueError("a mapping and a list in one place")
    return (items or mapping), lines


def _nested(lines: list[str], indent: int) -> tuple[Any, list[str]]:
    deeper = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    return _block(lines, deeper) if deeper > indent else (None, lines)


def _scalar(text: str) -> Any:
    if text.startswith(("[", '"')):
        return json.loads(text)
    if text.startswith(_SPECIAL) or " #" in text or ": " in text:
        raise ValueError(f"not a plain text: {text!r}")
    return int(text) if text.isdecimal() else text
