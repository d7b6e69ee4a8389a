"""Bring one file from the web: in parts over any number of attempts, under its final name only when whole and right.

`<name>.partial` holds what has come, `<name>.from.partial` what it is the beginning of: another command, on another
day, goes on with it if the server still has the same content.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfymodal.errors import CancelledError, ComfymodalError, ServiceError, TransferError
from comfymodal.files import read_json, write_json
from comfymodal.storage.model_source import Source, a_page
from comfymodal.storage.web import Access, Answer, Facts, TryAgainError, open_url

BLOCK_BYTES = 1 << 20
LONGEST_NAME_BYTES = 230
"""Of a file name; what is half-written has a longer one."""

_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_LONGEST_PAUSE_S = 900.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait before each new attempt that follows one without progress; after the last it is over."""

    pauses_s: Sequence[float] = _PAUSES_S
    timeout_s: float = 60.0
    """A line on which nothing comes for so long is cut."""


@dataclass(frozen=True, slots=True)
class Progress:
    done_bytes: int
    total_bytes: int | None
    speed: float
    """Bytes per second."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who hears how far it is, and who is asked whether to stop. `until` is Unix time."""

    on_progress: Callable[[Progress], None]
    is_stopped: Callable[[], bool]
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Downloaded:
    """`file` is whole, and still has the name of a half-written one; `verified`: its hash is the one it should be."""

    file: Path
    size_bytes: int
    sha256: str
    verified: bool
    resumed_from_bytes: int


@dataclass(slots=True)
class Download:
    """One file. `hashes` and `size_bytes` are what is known of it beforehand."""

    source: Source
    target: Path
    access: Access | None
    watch: Watch
    hashes: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int | None = None
    patience: Patience = field(default_factory=Patience)
    _told: str | None = field(init=False, default=None)
    """The sha256 that the server gives."""
    _digest: Any = field(init=False, default=None)
    _have: int = field(init=False, default=0)
    _best: int = field(init=False, default=0)
    _resumed_from: int = field(init=False, default=0)
    _has_begun_anew: bool = field(init=False, default=False)
    _meter: list[tuple[float, int]] = field(init=False, default_factory=list)

    def run(self) -> Downloaded:
        """Raises `TransferError`, `ServiceError`, `NotFoundError`, `NotReadyError`, `CancelledError`, and `OSError`.

        What has come stays for the next run, but a file that is whole and wrong.
        """
        self._take_up()
        while True:
            self._come_to_its_end()
            sha256 = self._digest.hexdigest()
            expected = self.hashes.get("sha256") or self._told
            if expected is None or sha256 == expected.lower():
                self._note.unlink(missing_ok=True)
                return Downloaded(self._part, self._have, sha256, expected is not None, self._resumed_from)
            self._forget()
            if self._resumed_from == 0 or self._has_begun_anew:
                raise TransferError(
                    f"{self.source.label} came whole and is not what it should be: its sha256 is {sha256}, "
                    f"expected was {expected}",
                    hint="is it the right file, and the right hash? nothing of it was kept",
                    sha256=sha256,
                )
            # Its beginning was of another day: the server may have changed it without saying so.
            self._has_begun_anew, self._resumed_from, self._best = True, 0, 0

    @property
    def _part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.partial")

    @property
    def _note(self) -> Path:
        return self.target.with_name(f"{self.target.name}.from.partial")

    def _take_up(self) -> None:
        """Read what an earlier run left, if it is of the same source."""
        self._digest, self._have = hashlib.sha256(), 0
        note = read_json(self._note) or {}
        if note.get("source") != self.source.label or not self._part.is_file():
            self._forget()
            return
        with self._part.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                self._stop_if_asked()
                self._digest.update(block)
                self._have += len(block)
        self._resumed_from = self._best = self._have

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._digest, self._have = hashlib.sha256(), 0

    def _come_to_its_end(self) -> None:
        failures = 0
        while True:
            try:
                if self._attempt():
                    return
                failure = TryAgainError(ServiceError("the line was cut"))
            except TryAgainError as exc:
                failure = exc
            failures = 0 if self._have > self._best else failures + 1
            self._best = max(self._best, self._have)
            if failures > len(self.patience.pauses_s) or (failure.after_s or 0) > _LONGEST_PAUSE_S:
                raise self._given_up(failure)
            own_s = self.patience.pauses_s[failures - 1] if failures else 0.0
            self._pause(max(own_s, failure.after_s or 0.0), failure)

    def _attempt(self) -> bool:
        """Whether the file is whole now."""
        note = read_json(self._note) or {}
        headers = {}
        if self._have:
            headers["Range"] = f"bytes={self._have}-"
            if validator := note.get("validator"):
                headers["If-Range"] = str(validator)
            elif not self.hashes and not note.get("identity"):
                # Nothing would tell whether the rest belongs to this beginning.
                self._forget()
                headers = {}
        with open_url(
            self.source.url, access=self.access, headers=headers, timeout_s=self.patience.timeout_s
        ) as answer:
            facts = answer.facts()
            self._told = facts.sha256 or self._told
            if answer.status == 416:
                return self._is_all_there(facts)
            self._require_right(answer, facts)
            if not self._goes_on(answer, facts, note):
                return False
            if self._have == 0:
                self._begin(facts)
            return self._receive(answer, facts)

    def _is_all_there(self, facts: Facts) -> bool:
        total = facts.size_bytes or self.size_bytes
        if self._have and total == self._have:
            return True
        self._forget()
        return False

    def _require_right(self, answer: Answer, facts: Facts) -> None:
        """Refuse what cannot be the file, before a byte of it is written."""
        if answer.is_page:
            raise a_page(self.source.label)
        told = {"size": (facts.size_bytes, self.size_bytes), "sha256": (facts.sha256, self.hashes.get("sha256"))}
        for what, (theirs, ours) in told.items():
            if theirs is not None and ours is not None and theirs != ours:
                raise TransferError(
                    f"{self.source.label} is not the file that was meant: its {what} is {theirs}, expected was {ours}",
                    hint="is it the right file, and the right hash? nothing was written",
                )

    def _goes_on(self, answer: Answer, facts: Facts, note: Mapping[str, Any]) -> bool:
        """Whether the answer is usable now; what has come is thrown away where it is of something else."""
        is_other = self._have > 0 and facts.identity is not None and note.get("identity") not in (None, facts.identity)
        if is_other and answer.status == 206:
            self._forget()
            return False
        if answer.range_start != self._have:
            # A whole file was sent: the server knows no ranges, or the content is new.
            self._forget()
        return answer.range_start == self._have

    def _begin(self, facts: Facts) -> None:
        self._resumed_from = 0
        self.target.parent.mkdir(parents=True, exist_ok=True)
        about = {"identity": facts.identity, "validator": facts.validator}
        write_json(self._note, {"source": self.source.label, **about})

    def _receive(self, answer: Answer, facts: Facts) -> bool:
        total = facts.size_bytes or self.size_bytes
        left = answer.expected_bytes
        with self._part.open("r+b" if self._have else "wb") as stream:
            stream.truncate(self._have)
            stream.seek(self._have)
            while block := answer.read(BLOCK_BYTES):
                stream.write(block)
                self._digest.update(block)
                self._have += len(block)
                left = None if left is None else left - len(block)
                self._report(total)
                self._stop_if_asked()
        if total is not None and self._have > total:
            self._forget()
            raise TryAgainError(ServiceError(f"{self.source.label}: more came than the {total} bytes it has"))
        return self._have == total if total is not None else left in (None, 0)

    def _report(self, total: int | None) -> None:
        now = time.monotonic()
        self._meter = [*(each for each in self._meter if now - each[0] < 5.0), (now, self._have)]
        (since, before), speed = self._meter[0], 0.0
        if now > since:
            speed = max(0.0, (self._have - before) / (now - since))
        self.watch.on_progress(Progress(self._have, total, speed))

    def _pause(self, seconds: float, failure: TryAgainError) -> None:
        if self.watch.until is not None and time.time() + seconds > self.watch.until:
            raise self._given_up(failure)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._stop_if_asked()
            time.sleep(min(0.1, left))
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.watch.is_stopped():
            raise CancelledError(
                f"stopped; {self._have} bytes of {self.source.label} are kept",
                hint="the same command goes on with them",
            )
        if self.watch.until is not None and time.time() > self.watch.until:
            raise TransferError(
                f"the time was over; {self._have} bytes of {self.source.label} are kept",
                hint="the same command goes on with them",
            )

    def _given_up(self, failure: TryAgainError) -> ComfymodalError:
        later = f"; it asks to wait {failure.after_s:.0f} s" if failure.after_s else ""
        kept = f"; {self._have} bytes are kept, and the same command goes on with them" if self._have else ""
        return ServiceError(
            f"{self.source.label} did not come: {failure.error.message}{later}", hint=f"try again later{kept}"
        )


def hash_file(path: Path, names: Sequence[str], is_stopped: Callable[[], bool]) -> dict[str, str]:
    """Hashes of a file by name, e.g. `sha256`. Raises `CancelledError`, `OSError`."""
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            if is_stopped():
                raise CancelledError("stopped while the file that is there was compared", hint="run it again")
            for digest in digests.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def give_name(file: Path, target: Path) -> bool:
    """Rename a finished file to its final name unless that is taken; say whether it has it now. Raises `OSError`."""
    # Nobody else writes here meanwhile: the volume is leased.
    if os.path.lexists(target):
        return False
    file.rename(target)
    return True
