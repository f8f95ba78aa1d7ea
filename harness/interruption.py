"""A polite request to stop: signals set a flag, and the training loop ends at its next step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

# The keyboard, a node that shuts down, SLURM before a limit or preemption.
SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR2")


class StopRequest:
    """A context in which the signals ask to stop; `stop()` tells whether one came, `stop.signal` which came
    first.

    A second Ctrl-C ends at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        self._before = {
            number: signal.signal(number, self._handle)
            for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name))
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal = number
