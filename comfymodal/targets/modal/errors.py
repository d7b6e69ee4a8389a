"""The one table from Modal's exceptions to ours, in the operator's words, each with the next command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import modal
import modal.exception as me

from comfymodal.errors import (
    ComfymodalError,
    NotFoundError,
    NotReadyError,
    ProjectError,
    RunFailedError,
    ServiceError,
)

# Order matters: the first class that fits is taken, so a subclass stands before its parent.
_TABLE: tuple[tuple[type[BaseException], type[ComfymodalError], str | None], ...] = (
    (me.AuthError, NotReadyError, "log in: modal token new; then: comfymodal doctor"),
    (me.PermissionDeniedError, NotReadyError, "this token may not do that; see which it is: comfymodal doctor"),
    (me.ImageBuildError, NotReadyError, "the image's build log is above; correct comfyui.* in comfymodal.yaml"),
    (me.FunctionTimeoutError, RunFailedError, "raise comfyui.timeout, then deploy"),
    (me.OutputExpiredError, NotFoundError, "the outputs volume still has it: comfymodal runs fetch"),
    (me.NotFoundError, NotFoundError, "what is there and what is missing: comfymodal doctor"),
    (me.ResourceExhaustedError, ServiceError, "a limit of the workspace is reached; see comfymodal status"),
    (me.ConnectionError, ServiceError, "is the network up? the same command may work later"),
    (me.ServiceError, ServiceError, "Modal has trouble; the same command may work later"),
    (me.InternalError, ServiceError, "Modal has trouble; the same command may work later"),
    (me.InternalFailure, ServiceError, "Modal lost the container; the same command may work later"),
    (me.InvalidError, ProjectError, "Modal refused it; correct comfymodal.yaml"),
    (me.RemoteError, ServiceError, None),
    (me.Error, ServiceError, None),
)


def translate(error: BaseException, doing: str, *, build_hint: str | None = None) -> ComfymodalError:
    """Modal's exception as ours: `doing` says what was attempted ("cannot deploy comfymodal-x-render").

    `build_hint` is said of an image that does not build, in place of the render image's.
    """
    for kind, ours, hint in _TABLE:
        if isinstance(error, kind):
            said = build_hint if build_hint and kind is me.ImageBuildError else hint
            return ours(f"{doing}: {_first_line(error)}", hint=said)
    raise error


@contextlib.contextmanager
def translated(doing: str, *, build_hint: str | None = None) -> Iterator[None]:
    """Raise Modal's exceptions as ours, see `translate`."""
    try:
        yield
    except modal.Error as exc:
        raise translate(exc, doing, build_hint=build_hint) from exc


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
