"""Signals that ask the program to end. They end it as an error does, so that nothing is left behind."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_SECONDS = 10.0


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

    The signal raises `Ended` in the main thread, so that every open block cleans up. Signals that follow within ten seconds are
    ignored, because that takes a moment. The handlers are those of before after the block.
    """
    if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        yield
        return
    received: list[tuple[Ended, float]] = []

    def end(number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if not received or now - received[-1][1] > PATIENCE_SECONDS:
            received.append((Ended(number), now))
            raise received[-1][0]

    before = {number: signal.signal(number, end) for number in _handled_signals()}
    try:
        yield
    except (
        BaseException
    ):  # a library may turn `Ended` into an exception of another class, as numpy does during its import
        if not received:
            raise
        ended = received[0][0]
        print(f"allen2022-surface: {ended}", file=sys.stderr)
        sys.exit(128 + ended.signal)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def postponed_signals() -> Iterator[None]:
    """Let the first signal that comes during the block take effect at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in _handled_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


def _handled_signals() -> list[int]:
    """Return the signals to handle. One that is ignored already, as by nohup, stays ignored."""
    return [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
