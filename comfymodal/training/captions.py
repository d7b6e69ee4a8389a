"""One caption: what its file says and what a trainer will make of it. Pure but for reading the file."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_PIECE = re.compile(r"\w+|[^\w\s]")
_BOMS = (b"\xff\xfe", b"\xfe\xff")

TriggerUse = Literal["there", "absent", "inside"]
"""`inside`: only as a part of other words ("cat" in "category"), which counts as being there and teaches nothing."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption file that is there. `text` is None where it is not UTF-8; the file's mark of its encoding stays in it.

    `fault` says in a few words why there is no text.
    """

    size_bytes: int
    sha256: str
    text: str | None
    fault: str = ""

    @property
    def is_empty(self) -> bool:
        return self.text is not None and not self.text.strip(" \t\r\n\ufeff")

    @property
    def has_mark(self) -> bool:
        """A byte order mark, which a trainer that reads plain UTF-8 takes for the first letter."""
        return self.text is not None and self.text.startswith("\ufeff")


def read_caption(path: Path) -> Caption:
    """Raises nothing: what is wrong is in the value."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Caption(0, "", None, f"it cannot be read ({error.strerror or error})")
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return Caption(len(data), sha256, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        guess = "it is UTF-16" if data.startswith(_BOMS) else f"byte {error.start + 1} is not UTF-8"
        return Caption(len(data), sha256, None, guess)


def least_tokens(text: str) -> int:
    """A lower bound of the tokens of a text: its words and signs. Tokenizers split rare words further."""
    return len(_PIECE.findall(text))


def trigger_use(text: str, trigger: str, placeholders: tuple[str, ...]) -> TriggerUse:
    """How a caption holds the trigger once its placeholders are replaced."""
    for placeholder in placeholders:
        text = text.replace(placeholder, trigger)
    if trigger not in text:
        return "absent"
    return "there" if re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", text) else "inside"
