"""An acceptance says what is missing before it starts, where nothing at all is installed, too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from harness.bench import packages

ROOT = Path(__file__).resolve().parents[2]


def listed(name: str) -> list[str]:
    """A list of pyproject.toml, which Python 3.10 cannot read."""
    found = re.search(rf"^{name} = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    return re.findall(r'"([^"]+)"', found[1])


def test_requirements_are_those_of_the_project():
    assert list(packages.REQUIREMENTS) == listed("dependencies") + listed("test")


def test_nothing_is_missing_where_the_tests_run():
    assert packages.find_missing() == []


def test_what_is_not_here_too_old_or_needed_by_others_is_missing(monkeypatch):
    here = {"torch": "2.9.1+cu130", "pytest": "9.0", "rich": "13.10"}
    needs = {"pytest": ["pluggy>=1.5", 'colorama; sys_platform == "win32"']}

    def version(name):
        if name not in here:
            raise metadata.PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(packages.metadata, "version", version)
    monkeypatch.setattr(packages.metadata, "requires", needs.get)
    wanted = ("torch>=2.11", "pytest>=8", "rich>=13.7", "hydra-core>=1.3.2")
    assert packages.find_missing(wanted) == [
        *("torch>=2.11", "hydra-core>=1.3.2", "pluggy>=1.5"),
        *("omegaconf>=2.2,<2.4", "antlr4-python3-runtime==4.9.3", "PyYAML", "packaging"),
    ]


def test_a_bare_python_is_told_what_to_bring(tmp_path):
    """Without site-packages: nothing is importable, and nothing is begun."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "harness.bench", "--acceptance", str(tmp_path / "out")],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    first, *rest = done.stderr.splitlines()
    assert first.startswith("error: packages are missing: torch>=2.11, ") and "msgspec" in first
    assert any("pip wheel --no-deps" in line and "antlr4" in line for line in rest)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "found"), [("2.11.0+cu130", [2, 11, 0]), ("3.0rc1", [3, 0, 1])])
def test_versions_are_compared_by_number(text, found):
    assert packages.numbers(text) == found
