"""An acceptance's verdicts and its page, from what parts left."""

from __future__ import annotations

from harness.bench import page


def row(method="combined", rate=100.0, **changes):
    found = {
        "method": method,
        "step_ms": 1280 / rate,
        "spread": 0.01,
        "images_per_s": rate,
        "ratio": 7.0,
        "gap": 1.0,
        "pipeline_share": 0.01,
        "host_share": 0.02,
        "waits": 0,
        "memory_bytes": 10**9,
        "graphs_bytes": 10**8,
        "captured": None,
        "warm_up_s": 3.0,
        "flops_per_s": 1e14,
        "peak_share": 0.3,
    }
    return found | changes


def rung(*rows, batch=128, late=0):
    options = {"batch": batch, "model": "wrn28_4", "teachers": 4, "classes": 100, "rounds": 5}
    return {
        "options": options,
        "methods": list(rows),
        "peak_flops_per_s": 4e14,
        "compilation": None,
        "compiled_while_timed": late,
    }


def verdicts(results):
    return {verdict["wanted"].rpartition(": ")[2]: verdict for verdict in page.judge(results)}


def test_the_fastest_rung_is_held_against_the_first():
    results = {
        "ladder_1": {"eager TF32": rung(row(rate=100)), "+ channels_last": rung(row(rate=250))},
        "ladder_2": {"compiled instead": rung(row(rate=310, host_share=0.06, pipeline_share=0.031, waits=2))},
    }
    found = verdicts(results)
    faster = found["at least 3 x the images/s of eager TF32"]
    assert faster["met"] is True and faster["measured"] == "310 images/s, 3.10 x"
    assert "B = 128, compiled instead" in faster["wanted"]
    assert [found[name]["met"] for name in ("data under 3%", "no waits", "device busy over 95%")] == [False] * 3
    results["ladder_2"] = {"compiled instead": rung(row(rate=260))}
    found = verdicts(results)
    assert [found[name]["met"] for name in ("data under 3%", "no waits", "device busy over 95%")] == [True] * 3
    assert found["at least 3 x the images/s of eager TF32"]["met"] is False


def test_without_the_first_rung_nothing_is_three_times_as_fast():
    found = verdicts({"ladder_1": None, "ladder_2": {"compiled instead": rung(row(rate=900))}})
    assert found["at least 3 x the images/s of eager TF32"]["met"] is None


def test_checks_and_runs_are_counted():
    assert [verdict["met"] for verdict in page.judge({})] == [None, None, None]
    checks = [{"check": 1, "title": "crossings", "passed": True, "measured": {}, "seconds": 1.0}]
    failed = {**checks[0], "check": 2, "passed": False}
    graphs = {"graphs": 3, "failure": None}
    runs = [{"status": "done", "captured": graphs}, {"status": "failed", "captured": {**graphs, "graphs": 0}}]
    found = page.judge({"checks": [*checks, failed], "sweep": runs})
    assert [(verdict["met"], verdict["measured"]) for verdict in found] == [(False, "1 of 2")] * 3
    assert page.judge({"checks": checks, "sweep": runs[:1]})[0]["met"] is True


def test_the_page_shows_what_there_is():
    def part(name, result, status="done", why=None):
        return {"name": name, "title": name, "status": status, "why": why, "seconds": 3.2, "result": result}

    eager = {"eager TF32": rung(row("supervised", 900), row(rate=100), row("combined (naive)", 60))}
    cells = [{"processes": 1, "images_per_s": 5e3, "runs_per_hour": 12.0}]
    compared = {"options": ["batch=128"], "mps": True, "served_by_mps": False, "run_images": 1_500_000, "cells": cells}
    measured = {"losses": [0.5, 0.25], "worst": 1 / 3, "wrong": "a | b\nc"}
    found = [
        part("machine", {"card": "NVIDIA H100", "date": "2026-11-28 00:10 UTC", "code": {"dirty": False}}),
        part("checks", [{"check": 1, "title": "crossings", "passed": False, "measured": measured, "seconds": 1.0}]),
        part("ladder_1", eager),
        part("ladder_2", {"compiled instead": rung(row(rate=320), late=3)}, "cut", "its time was over"),
        part("packing", None, "failed", "exit code 1: no"),
        part("packing_mps", compared),
        part("sweep", None, "cut", "stopped"),
    ]
    text = page.render(page.describe(found, small=False))
    assert text.startswith("# NVIDIA H100, 2026-11-28 00:10 UTC\n") and "rehearsal" not in text
    for line in (
        "| combined, B = 128, compiled instead: at least 3 x the images/s of eager TF32 | met | 320 images/s, 3.20 x |",
        "| all checks pass | **not met** | 0 of 1 |",
        "| ladder_2 | cut | 3 | its time was over |",
        "| 1 | crossings | **failed** | losses 0.5, 0.25, worst 0.3333, wrong a \\| b c | 1.0 |",
        "| combined | 100 (1.00) | 320 (3.20) |",
        "| combined (naive) | 60 (1.00) |  |",
        "| MPS asked for, **but not used** | 1 | 5,000 | 1.00 | 12.0 |",
        "No run left a record.",
    ):
        assert line in text.splitlines(), line
    assert "**3 graphs were still compiled while it was timed**" in text


def test_the_page_of_nothing_can_be_written():
    assert page.render(page.describe([], small=True)).startswith("# unknown machine, undated\n")
