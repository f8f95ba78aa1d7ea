"""The package as a whole: its public names, and what importing it costs."""

import subprocess
import sys
import types

import pytest

import analysis


@pytest.mark.parametrize("name", analysis.__all__)
def test_public_names_stay_what_they_are(name):
    first = getattr(analysis, name)
    assert getattr(analysis, name) is first
    assert callable(first) != isinstance(first, types.ModuleType)


def test_import_is_light_and_without_torch():
    heavy = ("torch", "numpy", "pandas", "scipy", "matplotlib", "rich", "jinja2")
    code = f"import sys, analysis, analysis.__main__; print(*[name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_the_whole_of_analysis_runs_without_torch(small_folder):
    code = (
        "import sys; from analysis.__main__ import main; "
        f"main(['table', {str(small_folder)!r}]); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
