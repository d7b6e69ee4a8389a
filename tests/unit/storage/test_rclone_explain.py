from __future__ import annotations

import pytest

from comfymodal.errors import (
    CancelledError,
    ComfymodalError,
    NotFoundError,
    NotReadyError,
    ServiceError,
    TransferError,
)
from comfymodal.storage.rclone.explain import SHOWN_CHARACTERS, explain, explain_text, is_final
from comfymodal.storage.rclone.log import LogLine

S3 = "operation error S3: ListObjects, https response error StatusCode: 403, RequestID: , HostID: , api error"
CASES: list[tuple[int, str, type[ComfymodalError], str]] = [
    (1, "failed to authorize account: failed to authenticate: bad (401 unauthorized)", NotReadyError, "is wrong"),
    (1, 'you must use bucket(s) [{"id" "models"}] with this application key', NotReadyError, "another bucket"),
    (1, "failed to get upload URL: Unknown 401 (401 unauthorized)", NotReadyError, "may not write"),
    (1, "error in ListJSON: Unknown 401 (401 unauthorized)", NotReadyError, "may not list"),
    (1, "failed to open source object: failed to GET for download: Unknown 401", NotReadyError, "may not read"),
    (1, 'failed to hide "x": Unknown 401', NotReadyError, "may not delete"),
    (1, 'Failed to create file system for "r0:models/pre": is a file not a directory', NotReadyError, "refused"),
    (1, f"{S3} InvalidAccessKeyId: no", NotReadyError, "key id is unknown"),
    (1, f"{S3} SignatureDoesNotMatch: no", NotReadyError, "does not belong"),
    (1, f"{S3} ExpiredToken: no", NotReadyError, "have expired"),
    (1, f"{S3} AccessDenied: no", NotReadyError, "access is refused"),
    (7, "Cap exceeded (403 download_cap_exceeded)", ServiceError, "cap of the B2 account"),
    (7, "something else", ServiceError, "refuses for good"),
    (3, "error in ListJSON: directory not found", NotFoundError, "no such bucket"),
    (3, "", NotFoundError, "no such bucket"),
    (4, "object not found", NotFoundError, "a file is gone"),
    (4, "", NotFoundError, "a file is gone"),
    (5, "Get: dial tcp 127.0.0.1:9: connect: connection refused", ServiceError, "cannot be reached"),
    (5, "dial tcp: lookup s3.example: no such host", ServiceError, "name is unknown"),
    (5, "unexpected EOF", ServiceError, "broke"),
    (5, "", ServiceError, "broke"),
    (1, "write /vol/x.partial: no space left on device", TransferError, "no room"),
    (1, "corrupted on transfer: md5 hashes differ src(S3) a vs dst(Local) b", TransferError, "not what was sent"),
    (1, "can't copy - source file is being updated (size changed)", TransferError, "written to"),
    (1, "open /vol/x: permission denied", TransferError, "cannot be written"),
    (1, "something nobody knows", TransferError, "transfer failed"),
    (6, "", TransferError, "transfer failed"),
    (10, "max transfer duration reached", TransferError, "time is up"),
    (8, "", TransferError, "limit of bytes"),
    (130, "context canceled: 403", CancelledError, "stopped on request"),
    (-9, "", TransferError, "signal 9"),
    (2, "unknown flag: --nope", ComfymodalError, "does not understand"),
]


@pytest.mark.parametrize(("code", "text", "kind", "says"), CASES)
def test_what_it_means(code: int, text: str, kind: type[ComfymodalError], says: str) -> None:
    lines = [
        LogLine("notice", "all is well"),
        LogLine("error", text),
        LogLine("error", "Attempt 1/1 failed with 1 errors"),
    ]

    error = explain(code, lines, place="store:pre")

    assert type(error) is kind
    assert says in error.message
    assert error.message.startswith("store:pre: ")
    assert text in error.message
    assert error.hint
    assert error.details == {"rclone_exit_code": code, "rclone_message": text}


def test_a_long_text_is_cut() -> None:
    error = explain(1, [LogLine("error", "x" * 10_000)])

    assert len(error.message) < SHOWN_CHARACTERS + 100


def test_a_failed_file_keeps_its_text() -> None:
    assert explain_text("read: unexpected EOF").endswith("(read: unexpected EOF)")
    assert explain_text("no idea") == "no idea"


@pytest.mark.parametrize(
    ("text", "is_the_end"),
    [("AccessDenied", True), ("no space left on device", True), ("unexpected EOF", False), ("no idea", False)],
)
def test_what_is_not_tried_again(text: str, is_the_end: bool) -> None:
    assert is_final(text) is is_the_end
