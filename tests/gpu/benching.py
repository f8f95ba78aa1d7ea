"""What harness.bench says of steps on a GPU."""

from __future__ import annotations

from harness.bench.__main__ import run
from harness.bench.subjects import Options
from harness.runtime.console import Console
from tests.gpu.sheet import Sheet


def measures_steps(sheet: Sheet) -> None:
    """Check 6: WRN-28-4 at B = 512: no waits, a host that is never what is waited for, no more than the device's peak."""
    small = {"model": "preresnet8", "batch": 4, "size": 8, "classes": 3, "methods": ["kd", "combined"]}
    large = {"model": "wrn28_4", "batch": 512}
    options = Options(**(small if sheet.small else large), device=str(sheet.device), rounds=2)
    result = run(options, False, None, Console())
    for row in result["methods"]:
        name, waits, host, peak = (row[key] for key in ("method", "waits", "host_share", "peak_share"))
        sheet.note(**{name: f"{row['step_ms']:.1f} ms, {waits} waits, host {host:.1%}, {peak:.1%} of the peak"})
        if sheet.on_gpu:
            sheet.expect(waits == 0, f"{name}: a step waits {waits} times")
            sheet.expect(host < 0.15, f"{name}: {host:.1%} of a step are the host's")
            sheet.expect(peak <= 1, f"{name}: {peak:.2f} of the device's peak")
