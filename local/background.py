"""Runs threads of the local cloud that end with the process and never swallow an error."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("local")


def start(work: Callable, *arguments) -> threading.Thread:
    """Runs the work in a thread of its own."""
    thread = threading.Thread(target=logged, args=(work, *arguments), name=work.__qualname__, daemon=True)
    thread.start()
    return thread


def later(seconds: float, work: Callable, *arguments) -> None:
    """Runs the work once the time has passed."""
    timer = threading.Timer(seconds, logged, args=(work, *arguments))
    timer.daemon = True
    timer.start()


def logged(work: Callable, *arguments) -> None:
    """Does the work; what it fails with is told by the log and keeps nobody else from theirs."""
    try:
        work(*arguments)
    except Exception:
        log.exception("%s failed", work.__qualname__)
