"""What must be installed, found out before anything starts; imports nothing of it.

The project itself need not be: a checkout and its packages are enough.
"""

from __future__ import annotations

import platform
import re
import shlex
import sys
from importlib import metadata

# The dependencies of pyproject.toml, and its extra `test` (a test compares them).
REQUIREMENTS = (
    "torch>=2.11",
    "torchvision>=0.26",
    "numpy>=2.0",
    "pillow>=11.3",
    "hydra-core>=1.3.2",
    "hydra-submitit-launcher>=1.2.0",
    "submitit>=1.5.2",
    "pandas>=2.2",
    "scipy>=1.13",
    "scikit-learn>=1.5",
    "matplotlib>=3.9",
    "rich>=13.7",
    "safetensors>=0.4.3",
    "jinja2>=3.1",
    "msgspec>=0.18",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
)
# What those need that often is missing with them; antlr4 is published without a wheel.
OFTEN_WITH = {
    "hydra-core": ("omegaconf>=2.2,<2.4", "antlr4-python3-runtime==4.9.3", "PyYAML", "packaging"),
    "submitit": ("cloudpickle", "typing_extensions"),
}


def find_missing(requirements: tuple[str, ...] = REQUIREMENTS) -> list[str]:
    """Requirements that are not met here, and what the packages that are here lack themselves."""
    missing: list[str] = []
    seen: set[str] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop(0)
        name = re.match(r"[\w.-]+", requirement)[0]
        if name.lower() in seen:
            continue
        seen.add(name.lower())
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(requirement)
            waiting += OFTEN_WITH.get(name, ())
            continue
        least = re.search(r">=\s*([\d.]+)", requirement)
        if requirement in requirements and least and numbers(installed) < numbers(least[1]):
            missing.append(requirement)
        # Without what only some platforms or extras need.
        waiting += [need for need in metadata.requires(name) or () if ";" not in need]
    return missing


def numbers(version: str) -> list[int]:
    """2.11.0+cu130 -> [2, 11, 0]"""
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]


def explain(missing: list[str]) -> str:
    """What is missing, and how to bring it to a machine without a network."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    quoted, program = shlex.join(missing), shlex.quote(sys.executable)
    lines = [
        f"error: packages are missing: {', '.join(missing)}",
        f"with a network: {program} -m pip install {quoted}",
        "without one: on a machine with a network,",
    ]
    if any(name.startswith("antlr4") for name in missing):
        lines.append("  python3 -m pip wheel --no-deps --wheel-dir wheels antlr4-python3-runtime==4.9.3")
    platforms = " ".join(
        f"--platform manylinux{tag}_{platform.machine()}" for tag in ("_2_28", "_2_27", "2014", "_2_17", "1")
    )
    lines += [
        f"  python3 -m pip download --no-deps --only-binary=:all: --python-version {python} {platforms} "
        f"--find-links wheels --dest wheels {quoted}",
        "and here, with its folder wheels,",
        f"  {program} -m pip install --no-index --no-deps --target site wheels/*.whl && export PYTHONPATH=$PWD/site",
    ]
    return "\n".join(lines)
