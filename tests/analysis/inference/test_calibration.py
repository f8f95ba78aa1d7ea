"""The committed page is what the command writes."""

import re
from pathlib import Path

from analysis.inference import calibration, sequential_calibration


def test_the_committed_page_has_the_words_of_the_command():
    committed = Path(calibration.__file__).with_name("CALIBRATION.md").read_text()
    text = calibration.PAGE + sequential_calibration.SECTION
    words = [part.strip() for part in re.split(r"\{[^}]*\}", text)]
    assert [part for part in words if part not in committed] == []
