"""How a process ended, in words; pure."""

from __future__ import annotations


def exit_words(code: int) -> str:
    """E.g. `exit code 1`, `signal 9 (out of memory? ...)` for -9."""
    if code >= 0:
        return f"exit code {code}"
    reason = " (out of memory? the system ends the largest process)" if code == -9 else ""
    return f"signal {-code}{reason}"
