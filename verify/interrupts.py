"""Ends a run early, by its own time, Ctrl-C or a signal, and keeps what must not be cut off."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

SIGNALS = (signal.SIGALRM, signal.SIGINT, signal.SIGTERM)
EVERY_SECONDS = 2.0

T = TypeVar("T")


class TimeIsUp(BaseException):
    """The run's time is over."""


class Stopped(BaseException):
    """Somebody has stopped the run."""


def listen(seconds: int) -> None:
    """Has a run raise `TimeIsUp` after that many seconds, and `Stopped` upon Ctrl-C or SIGTERM."""

    def stop(*_: object) -> None:
        raise Stopped

    def end(*_: object) -> None:
        raise TimeIsUp

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Holds back what would end the run until something is done, which has to be bounded itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def until(condition: Callable[[], T], deadline: float, every: float = EVERY_SECONDS) -> T:
    """Asks until the condition holds or the deadline of time.monotonic() is over; returns its last value."""
    while not (value := condition()) and time.monotonic() + every < deadline:
        time.sleep(every)
    return value
