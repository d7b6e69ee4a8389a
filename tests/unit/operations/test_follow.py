"""A Ctrl-C between handing a job over and noting its call id is held back, and not forgotten."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from comfymodal.operations.follow import deferred_interrupt


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interrupt_is_deferred_and_told() -> None:
    before = signal.getsignal(signal.SIGINT)
    reached = []
    with deferred_interrupt() as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("end of the block")

    assert reached == ["end of the block"]
    assert interrupted == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_is_told_without_an_interrupt_or_in_another_thread() -> None:
    found: list[list[int]] = []

    def work() -> None:
        with deferred_interrupt() as interrupted:
            found.append(interrupted)

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert found == [[], []]
