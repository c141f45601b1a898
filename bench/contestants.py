"""Who takes part: read from `contestants.toml` files, ours and those of other folders.

A contestant is one file (its adapter) that speaks the protocol of `bench/README.md`,
and the facts that the harness needs to know about it. `contestants.toml` beside the
adapters has one table for each. Packages that an adapter requires are installed into
a virtual environment of its own under `.venvs/`, never into the one that runs us.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
INSTALL_SECONDS = 900.0
_VERSION = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One library in one setting.

    `left` is the SQL that counts jobs which are not finished; without it they are the
    messages of the queue. `jobs` is how many a drain takes: fewer for slow ones.
    """

    name: str
    adapter: Path
    distribution: str
    left: str = ""
    queue: bool = False
    jobs: int = 10_000
    bulk: bool = True
    requires: tuple[str, ...] = ()
    python: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def venv(self) -> Path:
        """The virtual environment that its packages are installed into."""
        return ROOT / ".venvs" / f"bench-{self.distribution}"

    @property
    def interpreter(self) -> str:
        """The Python that runs its adapter."""
        if self.python:
            return self.python
        return str(self.venv / "bin" / "python") if self.requires else sys.executable

    @property
    def version(self) -> str | None:
        """The installed version, None if it is not installed."""
        if not Path(self.interpreter).exists():
            return None
        asked = subprocess.run(
            [self.interpreter, "-c", _VERSION, self.distribution],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return asked.stdout.strip() or None

    def install(self) -> None:
        """Make its virtual environment, with the latest versions of what it requires."""
        if not self.requires:
            return
        subprocess.run([sys.executable, "-m", "venv", self.venv], check=True, timeout=120)
        subprocess.run(
            [self.interpreter, "-m", "pip", "install", "--quiet", "--upgrade", *self.requires],
            check=True,
            timeout=INSTALL_SECONDS,
        )


def known(harnesses: Iterable[Path] = ()) -> list[Contestant]:
    """Ours, the peers of `bench/peers` and those of other folders, in this order."""
    return [one for folder in (HERE, HERE / "peers", *harnesses) for one in read(folder)]


def read(folder: Path) -> list[Contestant]:
    """The contestants that `contestants.toml` in *folder* describes."""
    file = folder / "contestants.toml"
    if not file.is_file():
        sys.exit(f"{file} is missing: it says which adapters there are, see bench/README.md.")
    tables = tomllib.loads(file.read_text("utf-8"))
    return [_contestant(folder.resolve(), name, table) for name, table in tables.items()]


def _contestant(folder: Path, name: str, table: dict[str, object]) -> Contestant:
    fields = dict(table)
    adapter = folder / str(fields.pop("adapter"))
    requires = fields.pop("requires", [])
    if not isinstance(requires, list):
        sys.exit(f"{name}: `requires` is a list of packages.")
    try:
        return Contestant(name=name, adapter=adapter, requires=tuple(requires), **fields)  # type: ignore[arg-type] # checked by whoever reads the figures
    except TypeError as error:
        sys.exit(f"{name} in {folder}/contestants.toml: {error}.")
