"""Synthetic studies shared by the tests of a session; none of them is changed by a test."""

import pytest

from tests.analysis.synthetic import make_study


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory):
    """Five variants and the factorial's extra arm, 8 seeds, one teacher set, with diagnostics."""
    return make_study(tmp_path_factory.mktemp("study"), diagnostics=True)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    """The same with 3 seeds."""
    return make_study(tmp_path_factory.mktemp("small"), seeds=range(3), files=False)
