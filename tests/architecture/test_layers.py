"""Who imports whom, and who reads the environment."""

from __future__ import annotations

import ast
import subprocess
import sys

from source_tree import ROOT, parsed, place, python_files

# Whoever starts other processes, or is asked where a tool lives, needs the environment as it is.
MAY_READ_ENVIRONMENT = ("config.py", "cli/", "dev/", "embedded/", "testing/")


def test_every_import_contract_is_kept() -> None:
    command = "from importlinter.cli import lint_imports_command as check; check()"

    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_configuration_reads_the_environment() -> None:
    readers = [
        f"{place(path)}:{node.lineno}"
        for path in python_files()
        if not place(path).startswith(MAY_READ_ENVIRONMENT)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    ]

    assert readers == []


def test_every_module_opens_by_saying_what_it_does() -> None:
    silent = [
        place(path)
        for path in python_files()
        if path.read_text("utf-8").strip() and not ast.get_docstring(parsed(path))
    ]

    assert silent == []
