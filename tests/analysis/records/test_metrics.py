"""The metrics: how they are printed."""

from analysis.records.metrics import metric


def test_printed_units():
    assert metric("acc").text(0.7917) == "79.17"
    assert metric("nll").text(-0.06051, plus=True) == "-0.0605"
    assert metric("teacher_acc").higher
