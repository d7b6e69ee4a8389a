"""B2's native API against the double of it, and against servers that are no B2."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
from aiohttp import web

from comfymodal.errors import ComfymodalError, NotReadyError, ServiceError
from comfymodal.storage.b2_api import FolderLook, authorize, bucket_id, look_into
from tests.doubles.b2_native import ALL, B2Native, Key
from tests.doubles.serving import Served, serve

KEY = Key()
LIMITED = Key(capabilities=frozenset({"listFiles", "readFiles"}), buckets=("models",), prefix="comfy/")


@pytest.fixture
def b2() -> B2Native:
    return B2Native()


@pytest.fixture
def url(b2: B2Native) -> Iterator[str]:
    with serve(b2.app()) as served:
        yield served.url


def answering(status: int, body: str, headers: dict[str, str] | None = None) -> AbstractContextManager[Served]:
    async def answer(request: web.Request) -> web.Response:
        said = body.replace("SENT", request.headers.get("Authorization", "").removeprefix("Basic "))
        return web.Response(status=status, text=said, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    return serve(app)


def test_a_key_for_everything(url: str) -> None:
    auth = authorize(KEY.key_id, f"{KEY.key}\n", url)

    assert auth.capabilities == ALL
    assert (auth.buckets, auth.has_lost_bucket, auth.prefix, auth.expires_at) == (None, False, "", None)
    assert (auth.api_url, auth.s3_url) == (url, "https://s3.us-west-004.example")
    assert auth.ahead_s is not None
    assert abs(auth.ahead_s) < 5
    assert auth.token not in repr(auth)


def test_a_key_that_may_do_little(b2: B2Native, url: str) -> None:
    expires_at = round(time.time()) + 3600.0
    b2.key = Key(**{**vars(LIMITED), "expires_at": expires_at})
    auth = authorize(b2.key.key_id, b2.key.key, url)

    assert auth.capabilities == {"listFiles", "readFiles"}
    assert (auth.buckets, auth.prefix, auth.expires_at) == ({"models": "models"}, "comfy/", expires_at)


def test_a_bucket_is_found_by_name(b2: B2Native, url: str) -> None:
    auth = authorize(KEY.key_id, KEY.key, url)

    assert (bucket_id(auth, "models"), bucket_id(auth, "nope")) == ("models", None)
    b2.key = LIMITED
    limited = authorize(KEY.key_id, KEY.key, url)
    before = b2.calls["list_buckets"]
    # What the key itself says needs no further request, and no capability.
    assert (bucket_id(limited, "models"), bucket_id(limited, "other")) == ("models", None)
    assert b2.calls["list_buckets"] == before


def test_a_folder_is_looked_into(b2: B2Native, url: str) -> None:
    for name in ("a.txt", "comfy_models/loras/x", "comfy_models/vae/y", "comfy_models/z", "other/q"):
        b2.put(name, b"1")
    auth = authorize(KEY.key_id, KEY.key, url)

    assert look_into(auth, "models", "") == FolderLook(1, ("comfy_models", "other"))
    assert look_into(auth, "models", "comfy_models") == FolderLook(1, ("loras", "vae"))
    assert look_into(auth, "models", "comfy").is_empty


def test_what_the_key_may_not_do(b2: B2Native, url: str) -> None:
    b2.key = Key(capabilities=frozenset({"readFiles"}))
    auth = authorize(KEY.key_id, KEY.key, url)

    with pytest.raises(NotReadyError, match="b2_list_buckets") as no_buckets:
        bucket_id(auth, "models")
    with pytest.raises(NotReadyError, match="b2_list_file_names") as no_files:
        look_into(auth, "models", "")
    assert "listBuckets" in str(no_buckets.value.hint)
    assert "listFiles" in str(no_files.value.hint)


def test_a_wrong_key(url: str) -> None:
    with pytest.raises(NotReadyError, match="the key id or the key is wrong") as wrong:
        authorize(KEY.key_id, "K004wrong", url)
    assert "not the account id" in str(wrong.value.hint)
    assert "K004wrong" not in f"{wrong.value} {wrong.value.hint}"


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, '{"code": "bad_auth_token", "message": ""}', NotReadyError, "key is wrong"),
        (401, '{"code": "expired_auth_token"}', NotReadyError, "has expired"),
        (403, '{"code": "transaction_cap_exceeded"}', ServiceError, "a cap of the B2 account"),
        (403, '{"code": "account_trouble"}', NotReadyError, "refuses the account (403 account_trouble)"),
        (503, '{"code": "service_unavailable"}', ServiceError, "overloaded"),
        (429, "", ServiceError, "overloaded"),
        (500, "[]", ServiceError, "out of order"),
        (404, "<html>", ServiceError, "does not answer as B2 does (404)"),
        (400, '{"code": "x", "message": "you sent SENT"}', ServiceError, "you sent <hidden>"),
        (200, "<html>", ServiceError, "does not answer as B2 does"),
        (200, "[1]", ServiceError, "does not answer as B2 does"),
        (200, "{}", ServiceError, "does not answer as B2 does"),
        (
            200,
            '{"accountId": "a", "apiInfo": {"storageApi": {"allowed": []}}}',
            ServiceError,
            "does not answer as B2 does",
        ),
    ],
)
def test_what_else_may_be_answered(status: int, body: str, kind: type[ComfymodalError], said: str) -> None:
    with answering(status, body) as served, pytest.raises(kind) as found:
        authorize(KEY.key_id, KEY.key, served.url)
    assert said in found.value.message
    assert found.value.hint
    for secret in (KEY.key, base64.b64encode(f"{KEY.key_id}:{KEY.key}".encode()).decode()):
        assert secret not in f"{found.value.message} {found.value.hint}"


def test_a_redirect_does_not_get_the_key() -> None:
    seen: list[str] = []

    async def record(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/{path:.*}", record)
    with (
        serve(app) as thief,
        answering(302, "", {"Location": f"{thief.url}/here"}) as served,
        pytest.raises(ServiceError, match="302"),
    ):
        authorize(KEY.key_id, KEY.key, served.url)
    assert seen == []


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ServiceError, match="B2 cannot be reached at http://127"):
            authorize(KEY.key_id, KEY.key, f"http://127.0.0.1:{taken.getsockname()[1]}")


def test_a_bucket_that_was_deleted() -> None:
    body = (
        '{"accountId": "a", "authorizationToken": "t", "apiInfo": {"storageApi": {"apiUrl": "u", "allowed": '
        '{"capabilities": [], "buckets": [{"id": "b1", "name": null}]}}}}'
    )
    with answering(200, body) as served:
        auth = authorize(KEY.key_id, KEY.key, served.url)
    assert (auth.buckets, auth.has_lost_bucket, auth.s3_url, auth.prefix) == ({}, True, None, "")
