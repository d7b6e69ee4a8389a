"""Whose clock, and that what Modal refuses is told without the values it quotes."""

from __future__ import annotations

import email.utils
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import modal
import modal.exception
import pytest
from aiohttp import web
from pytest_mock import MockerFixture

from comfymodal.errors import ComfymodalError
from comfymodal.targets.modal.checkup import read_clock
from comfymodal.targets.modal.known_secrets import known_secret
from comfymodal.targets.modal.secrets import create_secret
from tests.doubles.serving import serve


def dated(ahead_s: float, status: int) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        date = email.utils.formatdate(time.time() - ahead_s, usegmt=True)
        return web.Response(status=status, headers={"Date": date})

    app = web.Application()
    app.router.add_route("*", "/", answer)
    return app


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever runs this may have an account; nobody is asked.
    monkeypatch.setenv("MODAL_TOKEN_ID", "")
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "")


@pytest.mark.parametrize("status", [200, 404, 415])
@pytest.mark.parametrize("ahead_s", [0.0, 7200.0, -90.0])
def test_the_date_of_any_answer_tells_how_far_the_clock_is_off(
    monkeypatch: pytest.MonkeyPatch, ahead_s: float, status: int
) -> None:
    with serve(dated(ahead_s, status)) as server:
        monkeypatch.setenv("MODAL_SERVER_URL", f"{server.url},http://127.0.0.1:1")
        reading = read_clock(None)

    assert reading is not None
    assert reading.ahead_s == pytest.approx(ahead_s, abs=2)


def test_a_server_that_tells_no_time_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MODAL_SERVER_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert read_clock(None) is None


def refusing(error: Exception) -> Callable[..., None]:
    def create(*arguments: Any, **named: Any) -> None:
        raise error

    return create


def test_a_refusal_that_quotes_values_is_told_without_them(mocker: MockerFixture) -> None:
    # The double refuses in words of its own; what Modal quotes is not known, so the worst is assumed.
    error = modal.exception.InvalidError("value 'hf_abc' of HF_TOKEN (hf_abcdef) is too odd")
    mocker.patch.object(modal.Secret, "objects", SimpleNamespace(create=refusing(error)))
    with pytest.raises(ComfymodalError) as caught:
        create_secret(known_secret("hf-credentials"), {"HF_TOKEN": "hf_abc", "MORE": "hf_abcdef"}, None)

    assert caught.value.message == ("cannot create the secret hf-credentials: value '***' of HF_TOKEN (***) is too odd")
    assert caught.value.__cause__ is None


def test_a_secret_made_by_somebody_else_meanwhile_is_kept(mocker: MockerFixture) -> None:
    # Two setups at the same moment cannot be arranged with the double.
    error = modal.exception.AlreadyExistsError("there is one")
    mocker.patch.object(modal.Secret, "objects", SimpleNamespace(create=refusing(error)))

    assert create_secret(known_secret("hf-credentials"), {"HF_TOKEN": "x"}, None) is False
