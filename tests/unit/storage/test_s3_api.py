"""What `doctor` reads from an S3 server's answers; a real server that checks signatures is in tests/e2e."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from comfymodal.errors import ComfymodalError, NotFoundError, NotReadyError, ServiceError
from comfymodal.storage.b2_api import FolderLook
from comfymodal.storage.s3_api import S3Bucket
from comfymodal.storage.values import Keys, Remote
from tests.doubles.serving import serve

KEYS = Keys("AKIDOFTHETEST", "secret/of+the=test")

PAGE = (
    '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>models</Name>'
    "<IsTruncated>false</IsTruncated>{}</ListBucketResult>"
)
REFUSAL = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message>{}</Error>"


@dataclass
class Answers:
    """What the server says to a listing, and to a HEAD of the bucket."""

    status: int = 200
    body: str = PAGE.format("")
    headers: dict[str, str] = field(default_factory=dict)
    head_status: int = 200
    head_headers: dict[str, str] = field(default_factory=dict)
    once: list[tuple[int, str]] = field(default_factory=list)
    """Said first, one to each request."""
    seen: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(f"{request.method} {request.path_qs}")
        if self.once:
            status, body = self.once.pop(0)
            return web.Response(status=status, text=body, content_type="application/xml")
        if request.method == "HEAD":
            return web.Response(status=self.head_status, headers=self.head_headers)
        return web.Response(status=self.status, text=self.body, headers=self.headers, content_type="application/xml")


@contextmanager
def opened(answers: Answers, *, region: str | None = None) -> Iterator[S3Bucket]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answers.answer)
    with serve(app) as served:
        yield S3Bucket(Remote("store", "s3", "models", endpoint=served.url, region=region), KEYS)


def test_a_bucket_that_opens_tells_where_it_is() -> None:
    answers = Answers(head_headers={"x-amz-bucket-region": "eu-west-1"})
    with opened(answers, region="us-east-1") as bucket:
        look = bucket.look("comfy")

    assert (look.region, bucket.region) == ("eu-west-1", "us-east-1")
    assert look.ahead_s is not None
    assert abs(look.ahead_s) < 5
    assert answers.seen == [
        "GET /models?list-type=2&prefix=comfy%2F&max-keys=1&encoding-type=url",
        "HEAD /models",
    ]


def test_keys_that_may_list_and_no_more_will_do() -> None:
    with opened(Answers(head_status=403)) as bucket:
        assert bucket.look("").region is None


def test_a_server_that_lists_a_bucket_it_does_not_have_is_found_out() -> None:
    with opened(Answers(head_status=404)) as bucket, pytest.raises(NotFoundError, match="there is no bucket models"):
        bucket.look("")


def test_a_clock_that_is_off_shows() -> None:
    answers = Answers(headers={"Date": "Sat, 21 Nov 2020 16:37:03 GMT"})
    with opened(answers) as bucket:
        ahead_s = bucket.look("").ahead_s

    assert ahead_s is not None
    assert ahead_s > 86400 * 365


def test_a_folder_is_looked_into() -> None:
    entries = "<Contents><Key>a/</Key><Size>0</Size></Contents><Contents><Key>a/x</Key><Size>1</Size></Contents>"
    entries += "<CommonPrefixes><Prefix>a/vae/</Prefix></CommonPrefixes>"
    with opened(Answers(body=PAGE.format(entries))) as bucket:
        assert bucket.look_into("a") == FolderLook(1, ("vae",))


def test_boto3_must_not_hide_a_wrong_region() -> None:
    malformed = REFUSAL.format("AuthorizationHeaderMalformed", "wrong", "<Region>eu-west-1</Region>")
    with (
        opened(Answers(once=[(400, malformed)])) as bucket,
        pytest.raises(NotReadyError, match="is in eu-west-1, not in us-east-1") as found,
    ):
        bucket.look("")
    assert "region: eu-west-1" in str(found.value.hint)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "said"),
    [
        (403, "InvalidAccessKeyId", "unknown", NotReadyError, "the key id is unknown there"),
        (403, "SignatureDoesNotMatch", "calculated", NotReadyError, "the key does not belong to the key id"),
        (403, "RequestTimeTooSkewed", "too large", NotReadyError, "this machine's clock is wrong"),
        (403, "AccessDenied", "Access Denied", NotReadyError, "access is refused"),
        (403, "AccessDenied", "Cannot list, Transaction cap exceeded", ServiceError, "a cap of the B2 account"),
        (400, "ExpiredToken", "expired", NotReadyError, "the credentials have expired"),
        (404, "NoSuchBucket", "none", NotFoundError, "there is no bucket models"),
        (301, "PermanentRedirect", "elsewhere", NotReadyError, "is not in us-east-1"),
        (503, "SlowDown", "later", ServiceError, "overloaded"),
        (500, "", "", ServiceError, "overloaded"),
        (400, "Odd", "never heard of", NotReadyError, "the server refuses (Odd never heard of)"),
    ],
)
def test_what_a_server_may_refuse(status: int, code: str, message: str, kind: type[ComfymodalError], said: str) -> None:
    answers = Answers(status=status, body=REFUSAL.format(code, message, ""), head_status=status)
    with opened(answers) as bucket, pytest.raises(kind) as found:
        bucket.look("")
    assert said in found.value.message
    assert found.value.hint


def test_no_key_is_repeated() -> None:
    body = REFUSAL.format("InvalidAccessKeyId", f"The key '{KEYS.key_id}' with {KEYS.key} is not valid", "")
    with opened(Answers(status=403, body=body)) as bucket, pytest.raises(NotReadyError) as found:
        bucket.look("")
    told = f"{found.value.message} {found.value.hint}"
    assert KEYS.key_id not in told
    assert KEYS.key not in told


@pytest.mark.parametrize(
    ("body", "said"), [("<html>hello", "out of order"), ("{}", "out of order"), ("", "does not answer as S3 does")]
)
def test_a_server_that_does_not_speak_s3(body: str, said: str) -> None:
    # boto3 takes a page that is no XML for a broken server.
    with opened(Answers(body=body)) as bucket, pytest.raises(ServiceError, match=said):
        bucket.look("")


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServiceError, match="cannot be reached"):
            S3Bucket(Remote("store", "s3", "models", endpoint=url), KEYS).look("")


def test_nothing_of_this_machines_aws_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_PROFILE": "nobody",
        "AWS_SESSION_TOKEN": "theirs",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_REGION": "ap-south-1",
    }.items():
        monkeypatch.setenv(name, value)

    bucket = S3Bucket(Remote("store", "s3", "models"), KEYS)

    assert bucket._client.meta.endpoint_url == "https://s3.amazonaws.com"
    assert bucket._client._get_credentials().token is None
    assert S3Bucket(Remote("b", "s3", "m", endpoint="https://s3.us-west-004.backblazeb2.com"), KEYS).region == (
        "us-west-004"
    )
