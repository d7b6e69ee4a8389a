"""A Modal container as a place for jobs: volumes are mounts, events go to the board, commits are explicit.

Runs in the container only. A network fault between it and Modal must not end a render, so deliveries are tried again.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import modal

from comfymodal.errors import TransferError
from comfymodal.files import append_json_line
from comfymodal.jobs.contract import EVENTS_FILE, Control, Engine, run_folder
from comfymodal.targets.courier import Courier
from comfymodal.targets.modal.board import Board

DELIVER_EVERY_S = 0.5


class ModalPlace:
    """Fulfils `jobs.contract.Place`. `mounts` are path and volume name by role, `about` what every snapshot says.

    `before` is the snapshot of the container that had this run before, None for the first.
    """

    def __init__(
        self,
        run_id: str,
        *,
        mounts: Mapping[str, tuple[Path, str]],
        board: Board,
        before: Mapping[str, Any] | None,
        about: Mapping[str, Any],
        get_engine: Callable[[], Engine],
    ) -> None:
        self.volumes: Mapping[str, Path] = {role: path for role, (path, _) in mounts.items()}
        self.deadline: float | None = None
        self._names = {role: name for role, (_, name) in mounts.items()}
        self._run_id, self._board, self._about, self._get_engine = run_id, board, about, get_engine
        self._control: Control | None = None
        seq = int((before or {}).get("seq") or 0)
        # The first act: from now on the run can be found, and cancelled, by its id alone.
        self._undelivered: dict[str, Any] | None = {"seq": seq, "events": [], **about}
        self._tick()
        self._courier = Courier(self._deliver, every_s=DELIVER_EVERY_S, tick=self._tick, seq=seq)

    def emit(self, event: Mapping[str, Any]) -> None:
        self._courier.emit(event)

    def commit(self, volume: str) -> None:
        try:
            modal.Volume.from_name(self._names[volume]).commit()
        except modal.Error as exc:
            raise TransferError(f"cannot commit the volume {self._names[volume]}: {exc}") from exc

    def reload(self, volume: str) -> None:
        modal.Volume.from_name(self._names[volume]).reload()

    def control(self) -> Control | None:
        return self._control

    def stop(self) -> None:
        """As if the operator had asked: the container is being taken away."""
        self._control = "stop"

    def engine(self) -> Engine:
        return self._get_engine()

    def abandon(self) -> None:
        """Say nothing more: the run goes on elsewhere."""
        self._courier.close()

    def close(self, outcome: Mapping[str, Any]) -> None:
        """Deliver what is left, and how it ended."""
        self._courier.close()
        self._undelivered = {"seq": self._courier.seq, "events": list(self._courier.recent), **self._about}
        self._undelivered["outcome"] = dict(outcome)
        self._put()

    def _deliver(self, seq: int, events: Sequence[Mapping[str, Any]], recent: Sequence[Mapping[str, Any]]) -> None:
        self._undelivered = {"seq": seq, "events": list(recent), **self._about}
        folder = run_folder(self.volumes, self._run_id)
        if folder.is_dir():
            with contextlib.suppress(OSError):
                for event in events:
                    append_json_line(folder / EVENTS_FILE, event)

    def _tick(self) -> None:
        self._put()
        if self._control is None:
            with _said("cannot ask the board"):
                word = self._board.asked(self._run_id)
                self._control = "save" if word == "save" else "stop" if word else None

    def _put(self) -> None:
        if self._undelivered is not None:
            with _said("cannot write to the board"):
                self._board.write(self._run_id, self._undelivered)
                self._undelivered = None


@contextmanager
def _said(doing: str) -> Iterator[None]:
    try:
        yield
    except modal.Error as exc:
        print(f"comfymodal: {doing}: {exc}", file=sys.stderr, flush=True)  # noqa: T201
