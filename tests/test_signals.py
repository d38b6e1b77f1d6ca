"""Signals while a program runs that loses exceptions, as some libraries do."""

import signal
import subprocess
import sys

import pytest

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LOST_AT_ONCE = """
try:
    signal.raise_signal(number)
except:
    pass
"""
LOST_IN_A_DESTRUCTOR = """
class Resource:
    def __del__(self):
        try:
            signal.raise_signal(number)
        except BaseException:
            pass

Resource()
"""
LOST_THREE_TIMES = """
signal_is_sent = False
for _ in range(3):
    try:
        if not signal_is_sent:
            signal_is_sent = True
            signal.raise_signal(number)
        wait(20)
    except:
        pass
"""


def run(code: str, number: signal.Signals) -> tuple[int, str, str]:
    """Run code in a block of `ending_signals`, and return the exit status and what it prints."""
    lines = [
        "import os, signal, sys, time",
        "from allen2022_surface_packaging import signals",
        f"number = {int(number)}",
        "def wait(seconds):",
        "    end = time.monotonic() + seconds",
        "    while time.monotonic() < end:",
        "        time.sleep(0.01)",
        "signal.signal(signal.SIGINT, signal.default_int_handler)",
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)",
        "with signals.ending_signals():",
        *(f"    {line}" for line in code.splitlines()),
        "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)",
    ]
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


def line_of(number: signal.Signals) -> str:
    reason = "Interrupted." if number == signal.SIGINT else f"Stopped by {number.name}."
    return f"allen2022-surface: {reason}\n"


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("code", [LOST_AT_ONCE, LOST_IN_A_DESTRUCTOR, LOST_THREE_TIMES])
def test_lost_exception_is_raised_again(code, number):
    assert run(f"{code}\nwait(20)\nprint('it went on')", number) == (128 + number, "", line_of(number))


@pytest.mark.parametrize("number", ENDING)
def test_exception_that_is_lost_at_the_end_ends_the_program(number):
    assert run(LOST_AT_ONCE, number) == (128 + number, "", line_of(number))


@pytest.mark.parametrize("number", ENDING)
def test_second_signal_inside_the_handler_of_the_first_changes_nothing(number):
    code = """
import threading

class Late(threading.Thread):
    def start(self):
        if not Late.is_interrupted:
            Late.is_interrupted = True
            signal.raise_signal(signal.SIGINT)
        super().start()

Late.is_interrupted = False
threading.Thread = Late
signal.raise_signal(number)
"""
    assert run(code, number) == (128 + number, "", line_of(number))


@pytest.mark.parametrize("failure", ["", "raise RuntimeError('of the library')", "raise RuntimeError from None"])
def test_blocks_clean_up_undisturbed(failure):
    """Also if they take longer than the next reminders, and an error of a library follows."""
    code = f"""
try:
    try:
        signal.raise_signal(number)
    finally:
        {failure or "pass"}
finally:
    wait(1)
    os.kill(os.getpid(), signal.SIGINT)
    try:
        raise KeyError
    except KeyError:
        wait(0.5)
    print("clean")
"""
    assert run(code, signal.SIGTERM) == (143, "clean\n", line_of(signal.SIGTERM))


def test_signal_after_a_while_ends_blocks_that_hang():
    code = """
signals.PATIENCE_SECONDS = 0.5
try:
    signal.raise_signal(number)
finally:
    wait(1)
    print("hangs")
    os.kill(os.getpid(), signal.SIGINT)
    wait(20)
    print("it went on")
"""
    assert run(code, signal.SIGTERM) == (143, "hangs\n", line_of(signal.SIGTERM))


def test_exception_that_is_lost_in_a_postponed_moment_is_raised_after_it():
    code = """
try:
    signal.raise_signal(number)
except:
    pass
with signals.postponed_signals():
    wait(1)
    print("postponed")
print("it went on")
"""
    assert run(code, signal.SIGTERM) == (143, "postponed\n", line_of(signal.SIGTERM))


def test_handlers_are_those_of_before_after_the_block():
    inside = "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    assert run(inside, signal.SIGTERM) == (0, "False\nTrue\n", "")
