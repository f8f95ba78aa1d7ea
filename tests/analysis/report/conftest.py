"""The synthetic study as every test of the report reads it."""

import pytest

from analysis.records.loading import load
from analysis.records.study import Study
from analysis.report.summary import summarise


@pytest.fixture(scope="session")
def runs(study_folder):
    return load(study_folder)


@pytest.fixture(scope="session")
def view(runs):
    return summarise(runs, Study())
