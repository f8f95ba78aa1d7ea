"""Many processes that do the same at the same moment, cheaply: one imports the harness and forks the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.heads import ROOT

CODE = """
import json, os, sys
import torch._dynamo  # which every optimiser imports, in a second
from harness.run.single import run_single
from harness.store import claim

config, count, quick, folder = json.loads(sys.argv[1])
for name, value in quick.items():
    setattr(claim, name, value)
ready, go = os.pipe()
children = []
for number in range(count):
    child = os.fork()
    if child == 0:
        os.close(go)
        output = os.open(f"{folder}/{number}.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.read(ready, 1)  # until the parent lets all of them go
        code = 99
        try:
            code = run_single(config)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    children.append(child)
os.close(ready)
print(json.dumps(children), flush=True)
os.close(go)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
"""


class Crowd:
    """`count` processes, each the run of a configuration; `quick` are other values for the constants of claims."""

    def __init__(self, config: dict[str, Any], count: int, folder: Path, **quick: float):
        self.folder = folder
        folder.mkdir()
        task = json.dumps([config, count, quick, str(folder)])
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, task], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        self.pids: list[int] = json.loads(self.process.stdout.readline())

    def ends(self, patience: float = 300.0) -> list[int]:
        """The exit status of each, once all have ended."""
        said, _ = self.process.communicate(timeout=patience)
        return json.loads(said)

    def said(self) -> list[str]:
        """What each of them printed."""
        return [path.read_text() for path in sorted(self.folder.iterdir(), key=lambda path: int(path.stem))]
