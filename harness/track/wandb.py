"""Pages for W&B, in its offline form: OUT/offline-run-TIME-ID, a folder a run, which `wandb sync` uploads.

W&B goes on with no run offline, and takes no number back. So a page is written when its run has ended, and its ID is a
digest of all that it tells: another page (the run was forced again, evaluated again) is another run for W&B, and takes
the place of what has not been uploaded yet. A folder appears when it is whole; the one that is there was sent.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from harness.track.page import Page
from harness.track.tracker import ANEW, NEW, Missing, Refused

try:
    import wandb
except ImportError as error:
    raise Missing("wandb") from error

LONGEST_TAG = 64  # characters
# What this process is, which only tells of runs, is nobody's business.
QUIET = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class WandB:
    """A folder of runs for W&B."""

    live = False

    def __init__(self, out: str, project: str):
        self.folder, self.project = Path(out), project
        self.where = f"wandb sync {shlex.quote(out)}/offline-run-*"
        self.notes: list[str] = []

    def send(self, page: Page) -> str | None:
        identity = f"{page.hash}{page.digest()}"
        found = {path: path.name.split("-")[-1] for path in self.folder.glob(f"offline-run-*-{page.hash}*")}
        others = [path for path, known in found.items() if known != identity]
        for path in others:
            if not any(path.glob("*.synced")):  # W&B's own mark
                shutil.rmtree(path)
            elif identity not in found.values():
                self.notes.append(f"{page.name}: W&B has an earlier page of it, {found[path]}: delete that there")
        if identity in found.values():
            return None
        try:
            self.write(page, identity)
        except wandb.Error as error:
            raise Refused(str(error)) from error
        return ANEW if others else NEW

    def write(self, page: Page, identity: str) -> None:
        """Write a page's folder."""
        ending = page.ending
        self.folder.mkdir(parents=True, exist_ok=True)
        labels = [
            ending.status,
            *(f"{name}: {ending.tags[name]}" for name in ("code", "device") if name in ending.tags),
        ]
        scratch = self.folder / f".{identity}"
        shutil.rmtree(scratch, ignore_errors=True)  # of a sender that was killed
        scratch.mkdir()
        try:
            run = wandb.init(
                mode="offline",
                dir=str(scratch),
                project=self.project,
                id=identity,
                name=page.name,
                config=ending.options | {"provenance": ending.tags},
                tags=[label[:LONGEST_TAG] for label in labels],
                reinit="create_new",
                settings=wandb.Settings(**QUIET),
            )
            for epoch in page.epochs:
                run.log({**epoch.values, "_timestamp": page.began + epoch.elapsed_s}, step=epoch.number)
            run.summary.update(ending.final)
            run.finish(exit_code=0 if ending.status == "done" else 1)
            wandb.teardown()  # its process writes until it ends, and on a busy machine `finish` returns before
            written = Path(run.settings.sync_dir)
            written.rename(self.folder / written.name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
