"""What was last sent to a volume through its API: size, sha256 and time of each file, kept on the volume itself.

A volume's listing tells no hash, and Modal takes a batch of files whole or not at all. So this note travels within
each batch: after a kill between a batch and its record in the base, the next sync sees that those files are equal.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from comfymodal.storage.names import OWN_FOLDER

SENT_FILE = f"{OWN_FOLDER}/sent.json"

KEPT = 2_500
"""The newest files: more than a sync copies before it writes its base."""

_SAME_BATCH_S = 5
"""The note of a batch and its files may get times that differ by so much."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One file as it was sent. `mtime` is that of its source, `listed` the volume's time of it (whole seconds)."""

    size: int
    sha256: str
    mtime: float | None
    listed: int | None = None


@dataclass(slots=True)
class SentFiles:
    """By path from the volume's root, oldest first. `written` is the volume's time of the note, once it has one."""

    files: dict[str, Sent] = field(default_factory=dict)
    batch: str = ""
    written: int | None = None

    def add(self, files: Mapping[str, Sent]) -> SentFiles:
        """The note to send with these files."""
        kept = {path: sent for path, sent in self.files.items() if path not in files and sent.listed is not None}
        newest = list({**kept, **files}.items())[-KEPT:]
        return SentFiles(dict(newest), uuid.uuid4().hex)

    def listed(self, path: str, time: int) -> None:
        """That file was seen with this time: from now on no other one will do."""
        self.files[path] = replace(self.files[path], listed=time)

    def of(self, path: str, size: int, time: int) -> Sent | None:
        """The note of a file that lists with this size and time; None when it was written by somebody else since."""
        sent = self.files.get(path)
        if sent is None or sent.size != size:
            return None
        if sent.listed is not None:
            return sent if sent.listed == time else None
        is_of_batch = self.written is not None and abs(self.written - time) <= _SAME_BATCH_S
        return sent if is_of_batch else None

    def text(self) -> bytes:
        files = {path: [sent.size, sent.sha256, sent.mtime, sent.listed] for path, sent in self.files.items()}
        return json.dumps({"version": 1, "batch": self.batch, "files": files}, ensure_ascii=False).encode()


def parse_sent(text: bytes, written: int) -> SentFiles:
    """The note as it was read. A damaged one is empty: nothing is known, and nothing is taken for equal."""
    try:
        data = json.loads(text)
        files = {
            str(path): Sent(int(size), str(sha256), None if mtime is None else float(mtime), listed)
            for path, (size, sha256, mtime, listed) in data["files"].items()
        }
        return SentFiles(files, str(data["batch"]), written)
    except (ValueError, TypeError, KeyError, AttributeError):
        return SentFiles()
