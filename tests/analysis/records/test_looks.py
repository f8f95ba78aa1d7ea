"""The log of a sequential study: appended, sealed, and what a dying process leaves of it."""

import contextlib
import json
import os

import pytest

from analysis.records.errors import AnalysisError
from analysis.records.looks import LOOKS, append_look, read_looks
from tests.damage import contents, flips, variants


def look(number, previous=None, **more):
    standing = {
        "family": "f", "data": "digits", "model": "m", "variant": "a", "reference": "b", "weights": {"a": 1.0, "b": -1.0},
        "n": 4, "differences": [0.1, "inf", -0.2, 0.0], "estimate": "inf", "level": 0.05, "spent": 0.01, "boundary": None,
        "statistic": 3.0, "p": 0.5, "p_equivalence": None, "low": "-inf", "high": "inf", "verdict": "open",
        "decided": None,
    }  # fmt: skip
    return {
        "format": 1, "look": number, "taken": "2026-01-01T00:00:00+00:00", "declared": "d", "primary": "nll",
        "alpha": 0.05, "looks": [4, 6], "spending": "pocock", "statistic": "rank", "seeds": [0, 1, 2, 3], "sets": [0],
        "runs": 8, "failed": ["x"], "standings": [standing], "previous": previous,
    } | more  # fmt: skip


def write_two(folder):
    first = append_look(folder, look(1))
    return [first, append_look(folder, look(2, first["digest"]))]


def test_what_is_written_is_read(tmp_path):
    assert read_looks(tmp_path) == []
    assert write_two(tmp_path) == read_looks(tmp_path)


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_torn_line_is_no_look(tmp_path, cut):
    """Wherever it was cut short, and whatever is appended to it."""
    first, second = write_two(tmp_path)
    path = tmp_path / LOOKS
    path.write_bytes(path.read_bytes()[: -cut - 1])
    assert read_looks(tmp_path) == [first]
    again = append_look(tmp_path, look(2, first["digest"], runs=9))
    assert read_looks(tmp_path) == [first, again]
    assert again != second


def test_two_processes_may_take_one_look(tmp_path):
    first = append_look(tmp_path, look(1))
    append_look(tmp_path, look(1, taken="2026-01-01T00:00:01+00:00"))
    assert read_looks(tmp_path) == [first]


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda lines: [lines[0].replace('"p": 0.5', '"p": 0.01'), lines[1]],
            "look 1 was changed after it was written",
        ),
        (lambda lines: [lines[1]], "look 2 does not follow"),
        (lambda lines: [lines[0], lines[1].replace('"alpha": 0.05', '"alpha": "all"')], "not as it should be"),
        (lambda lines: [lines[0].replace('"format": 1', '"format": 2'), lines[1]], "newer format"),
    ],
)
def test_a_log_that_was_changed_is_refused(tmp_path, change, message):
    write_two(tmp_path)
    path = tmp_path / LOOKS
    lines = [line for line in path.read_text().splitlines() if line]
    path.write_text("\n".join(change(lines)) + "\n")
    with pytest.raises(AnalysisError, match=message) as error:
        read_looks(tmp_path)
    assert "\n" not in str(error.value)


def test_a_look_after_another_first_one_is_refused(tmp_path):
    first = append_look(tmp_path, look(1))
    append_look(tmp_path, look(2, "0" * 32))
    with pytest.raises(AnalysisError, match="look 2 does not follow the one before it"):
        read_looks(tmp_path)
    assert json.loads((tmp_path / LOOKS).read_text().split("\n")[0])["digest"] == first["digest"]


@pytest.mark.parametrize("damage", ["a byte", "zeros", "the last bracket"])
def test_a_look_does_not_vanish(tmp_path, damage):
    """It would be taken again, of the runs that there are by then."""
    append_look(tmp_path, look(1))
    content = (tmp_path / LOOKS).read_bytes()
    changed = {"a byte": content[:50] + b"\xff" + content[51:], "zeros": bytes(len(content))}
    (tmp_path / LOOKS).write_bytes(changed.get(damage, content[:-2] + b"]\n"))
    with pytest.raises(AnalysisError, match=LOOKS):
        read_looks(tmp_path)


def test_no_damage_changes_a_look_or_takes_one_away(tmp_path):
    """Not the end of its line, nor a number that is none, which has no digest."""
    write_two(tmp_path)
    path = tmp_path / LOOKS
    content, right = path.read_bytes(), read_looks(tmp_path)
    first, last = filter(None, content.split(b"\n"))
    changed = [content[:-1] + bytes([content[-1] ^ 1 << bit]) for bit in range(8)]
    changed += [b"%s\n%s\n" % (first, json.dumps(value).encode()) for _, value in variants(json.loads(last))]
    for one in (*flips(content), *(contents("changed", one) for one in changed)):
        one.inflict(path)
        with contextlib.suppress(AnalysisError):
            assert read_looks(tmp_path) == right, path.read_bytes()


def test_a_look_that_was_whole_but_for_its_end_stays(tmp_path):
    first = append_look(tmp_path, look(1))
    path = tmp_path / LOOKS
    path.write_bytes(path.read_bytes()[:-1])
    append_look(tmp_path, look(2, first["digest"]))
    assert [found["look"] for found in read_looks(tmp_path)] == [1, 2]


def test_a_pipe_in_the_place_of_a_log_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / LOOKS)
    with pytest.raises((OSError, AnalysisError, ValueError)):
        append_look(tmp_path, look(1))
