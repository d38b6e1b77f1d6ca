"""Signals that ask the program to end. They end it as an error does, so that nothing is left behind."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .output import print_error

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_SECONDS = 10.0
REMINDER_SECONDS = 0.2


class Ended(KeyboardInterrupt):  # libraries expect this class, and pass it on
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)

    def __str__(self) -> str:
        return "Interrupted." if self.signal == signal.SIGINT else f"Stopped by {self.signal.name}."


@contextmanager
def ending_signals() -> Iterator[None]:
    """End the program if a signal comes during the block: one line on stderr, and the exit status 128 + its number.

    The signal raises `Ended` in the main thread, so that every open block cleans up. It is raised again where a library lost it:
    netCDF4 ignores every exception while it looks for some attributes of a variable. Signals that follow within ten seconds are
    ignored while blocks clean up, because that takes a moment. The handlers are those of before after the block.
    """
    if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        yield
        return
    handler = _Handler()
    with _handled_by(handler):
        try:
            yield
        except BaseException:  # of any class: numpy turns `Ended` into another exception during its import
            if handler.ended is None:
                raise
        finally:
            handler.stop()
    if handler.ended is not None:
        print_error(f"allen2022-surface: {handler.ended}")
        sys.exit(128 + handler.ended.signal)


class _Handler:
    """Raise `Ended` when a signal comes, and again, from time to time, where no block is ending because of it."""

    def __init__(self) -> None:
        self.ended: Ended | None = None
        self._raised_at = 0.0
        self._is_reminder = False
        self._stopped = threading.Event()
        self._reminder: threading.Thread | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        is_reminder, self._is_reminder = self._is_reminder, False
        if self._stopped.is_set():
            return
        now = time.monotonic()
        if self.ended is not None and _is_ending() and (is_reminder or now - self._raised_at <= PATIENCE_SECONDS):
            return
        error = Ended(number)
        self._raised_at = now
        if self.ended is None:
            self.ended = error
        if self._reminder is None:
            reminder = threading.Thread(target=self._remind, args=(self.ended.signal,), daemon=True)
            reminder.start()
            self._reminder = reminder  # only now, because another signal may interrupt this method anywhere
        raise error

    def _remind(self, number: signal.Signals) -> None:
        while not self._stopped.wait(REMINDER_SECONDS):
            self._is_reminder = True
            _thread.interrupt_main(number)

    def stop(self) -> None:
        """Call no more. A call that is under way does nothing."""
        self._stopped.set()
        if self._reminder is not None:
            self._reminder.join()


def _is_ending() -> bool:
    """Return whether the main thread is in an `except`, `finally` or `with` that handles `Ended`, or an error caused by it."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, Ended):
        error = error.__context__
    return error is not None


@contextmanager
def postponed_signals() -> Iterator[None]:
    """Let the first signal that comes during the block take effect at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    with _handled_by(lambda number, _: received.append(number)):
        yield
    if received:
        signal.raise_signal(received[0])


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a function handle the signals during the block. One that is ignored already, as by nohup, stays ignored."""
    numbers = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
