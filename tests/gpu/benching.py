"""What harness.bench says of steps on a GPU."""

from __future__ import annotations

import json

from tests.gpu.runs import command
from tests.gpu.sheet import Sheet

# One launch at a time: captured steps need less of a host.
LARGE = ("model=wrn28_4", "batch=512", "precision=tf32", "capture=false")
SMALL = ("model=preresnet8", "batch=4", "size=8", "classes=3", "methods=kd,combined")


def measures_steps(sheet: Sheet) -> None:
    """Check 6: WRN-28-4 at B = 512: no waits, a host that is never what is waited for, no more than the device's peak."""
    file = sheet.folder / "bench.json"
    sizes = SMALL if sheet.small else LARGE
    print(command("harness.bench", *sizes, f"device={sheet.device.type}", "rounds=2", "--output", str(file)))
    for row in json.loads(file.read_text())["methods"]:
        name, waits, host, peak = (row[key] for key in ("method", "waits", "host_share", "peak_share"))
        sheet.note(**{name: f"{row['step_ms']:.1f} ms, {waits} waits, host {host:.1%}, {peak:.1%} of the peak"})
        if sheet.on_gpu:
            sheet.expect(waits == 0, f"{name}: a step waits {waits} times")
            sheet.expect(host < 0.15, f"{name}: the device rests for {host:.1%} of a step")
            sheet.expect(peak <= 1, f"{name}: {peak:.2f} of the device's peak")
