"""A polite request to stop: signals set a flag, and the training loop ends at its next step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType

# The keyboard, a node that shuts down, SLURM before a limit or preemption, a terminal that goes away.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)

Stop = Callable[[], bool]  # whether to end, asked between steps


class Interrupted(RuntimeError):
    """The run was asked to stop; its checkpoint is written."""


@contextlib.contextmanager
def held_back(signals: Iterable[int] = (signal.SIGTERM, signal.SIGUSR2)) -> Iterator[None]:
    """Signals wait; for a child that is started in here they wait until it is in a StopRequest of its own, if ever."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
        # nohup has its children ignore a terminal that goes away, and they keep to that.
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP]
        if threading.current_thread() is not threading.main_thread():
            heard = []  # signals are the main thread's
        self._before = {number: signal.signal(number, self._handle) for number in heard}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)  # see held_back
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
