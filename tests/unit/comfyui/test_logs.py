from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from comfymodal.comfyui.logs import follow_lines, read_last


def test_the_last_lines_of_a_long_log_are_whole(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("".join(f"line {number} {'x' * (number % 700)}\n" for number in range(3000)))
    found = read_last(log, 50)
    assert [line.split()[1] for line in found] == [str(number) for number in range(2950, 3000)]
    assert len(read_last(log, 10_000)) == 3000


def test_a_short_log_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"\x1b[32mgreen\x1b[0m\n 10%|# |\r 20%|##|\n\xff\xfe")
    assert read_last(tmp_path / "log.txt", 5) == ("green", " 10%|# |", " 20%|##|", "\ufffd\ufffd")
    assert read_last(tmp_path / "none.txt", 5) == ()


def append(log: Path, data: bytes) -> None:
    with log.open("ab") as stream:
        stream.write(data)


def test_following_goes_on_into_the_log_of_the_next_start(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("said before\n")
    steps: Iterator[Callable[[], object]] = iter(
        [
            lambda: append(log, "half a caf\u00e9".encode()[:-1]),
            lambda: append(log, "\u00e9".encode()[1:] + b"\nlast words"),
            lambda: log.replace(tmp_path / "log.previous.txt"),
            lambda: log.write_text("begun anew\n\x1b[1mdone\n"),
        ]
    )

    def is_alive() -> bool:
        step = next(steps, None)
        if step is not None:
            step()
        return step is not None

    assert list(follow_lines(log, is_alive=is_alive)) == ["half a caf\u00e9", "last words", "begun anew", "done"]
