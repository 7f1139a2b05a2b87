"""A hang in C ends the process; slow but living work and idling do not."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, time
from actors.watchdog import HangWatchdog
watchdog = HangWatchdog(float(sys.argv[1]))
{body}
watchdog.close()
print("survived")
"""

KEEPS_THE_LOCK = "ctypes.PyDLL(None).sleep(3600)"
RELEASES_THE_LOCK = "ctypes.CDLL(None).sleep(3600)"


def run(body: str, seconds: float) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(body=body)
    return subprocess.run(
        [sys.executable, "-c", program, str(seconds)], capture_output=True, text=True, timeout=600, check=False
    )


def test_hang_ends_the_process_with_one_clear_line_and_a_traceback() -> None:
    done = run(f"with watchdog: {RELEASES_THE_LOCK}", 0.5)
    assert done.returncode == 1
    assert "survived" not in done.stdout
    assert done.stderr.splitlines()[0] == (
        "an environment hung for more than 0.5 s; this process ends, to be started anew"
    )
    assert 'File "<string>"' in done.stderr


def test_hang_that_keeps_the_interpreter_lock_ends_the_process_too() -> None:
    done = run(f"with watchdog: {KEEPS_THE_LOCK}", 0.5)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert 'File "<string>"' in done.stderr


@pytest.mark.parametrize(
    "body",
    [
        "with watchdog:\n    for _ in range(10): time.sleep(0.3); watchdog.alive()",
        "with watchdog: pass\ntime.sleep(2.5)",
        "watchdog.close(); time.sleep(2.5)",
    ],
    ids=["slow but alive", "idle outside", "closed"],
)
def test_what_does_not_hang_survives(body: str) -> None:
    done = run(body, 1.5)
    assert done.stdout == "survived\n"
    assert done.stderr == ""


def test_error_inside_passes_and_stops_the_time() -> None:
    body = "try:\n    with watchdog: raise KeyError\nexcept KeyError: pass\nelse: print('swallowed')\ntime.sleep(2.5)"
    done = run(body, 1.5)
    assert done.stdout == "survived\n"
