"""Runs one experiment of ensemble distillation, or plans and survives many.

    import harness
    run = harness.run(method="combined", seed=0, train={"epochs": 5})
    runs = harness.sweep(method="all", seed=[0, 1])

The command line's options by the command line's names; see harness/notebook.py. `harness.run` and `harness.sweep` are also
the rooms of these names.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from harness.notebook import run as run
    from harness.notebook import sweep as sweep
else:
    from harness import run, sweep

    class Callable(ModuleType):
        """A room that can be called, as the function of its name in harness/notebook.py; torch waits for that."""

        def __call__(self, *overrides: str, **options: Any) -> Any:
            notebook = import_module("harness.notebook")
            return getattr(notebook, self.__name__.rpartition(".")[2])(*overrides, **options)

    run.__class__ = sweep.__class__ = Callable
