"""Whether the models that a training downloads will open to it, before a GPU is paid for: tokens and licences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from comfymodal.errors import NotFoundError, NotReadyError, ServiceError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.setup import Values
from comfymodal.operations.train_datasets import Looked
from comfymodal.storage.model_source import HUGGING_FACE, require_repository
from comfymodal.storage.web import TryAgainError
from comfymodal.training.ai_toolkit.archs import is_gated

TOKEN = "HF_TOKEN"
TOKEN_NAMES = (TOKEN, "HF_ENDPOINT")
"""What a training on this machine may need of `.env`: for `operations.keys.with_keys`."""

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TOKEN_PAGE = f"{HUGGING_FACE}/settings/tokens"


@dataclass(frozen=True, slots=True)
class Keys:
    """Modal secrets as a job names them: those it cannot do without, and those it takes along where they are."""

    secrets: tuple[str, ...] = ()
    optional_secrets: tuple[str, ...] = ()


def require_model(looked: Looked, context: Context, desk: Desk) -> Keys:
    """Look whether every Hugging Face repository of a config opens, with the token at hand if there is one.

    Without a token, or without an answer, there is only a warning: the trainer may have the model already. Raises
    `NotReadyError` (no such secret, no valid token, a licence that is not accepted), `NotFoundError` (no such
    repository), `InputFileError` (`.env` cannot be read).
    """
    repositories = tuple(dict.fromkeys(_repositories(looked)))
    if not repositories:
        return Keys()
    gated = tuple(name for name in repositories if is_gated(name))
    secret = context.project.training.secret
    on_modal = context.project.target == "modal"
    if on_modal and gated:
        _require_secret(secret, gated[0], context)
    environ = _environ(context)
    if environ.get(TOKEN) and not any(environ.get(name) for name in _OFFLINE):
        _ask(repositories, environ, desk, secret=secret if on_modal else None)
    elif gated and not on_modal:
        desk.warn(f"{gated[0]} is gated, and there is no {TOKEN} here: it opens only if it was downloaded before")
    if not on_modal:
        return Keys()
    return Keys(secrets=(secret,)) if gated else Keys(optional_secrets=(secret,))


def _repositories(looked: Looked) -> Iterator[str]:
    for found in looked.paths:
        if found.kind == "repository":
            # It may be a file in one.
            yield "/".join(found.at.split("/")[:2])


def _require_secret(secret: str, repository: str, context: Context) -> None:
    from comfymodal.targets.modal.known_secrets import KnownSecret
    from comfymodal.targets.modal.secrets import missing_keys
    from comfymodal.targets.modal.session import connect

    spec = context.modal_spec()
    connect(spec.workspace)
    missing = missing_keys(KnownSecret(secret, (TOKEN,)), spec.environment)
    if missing == ():
        return
    what = f"there is no Modal secret {secret}" if missing is None else f"the Modal secret {secret} has no {TOKEN}"
    raise NotReadyError(
        f"{repository} is gated, and {what}; nothing was started",
        hint=f"accept the licence at {HUGGING_FACE}/{repository}, make a token at {_TOKEN_PAGE}, write {TOKEN}=... "
        "into .env, then: comfymodal setup",
        secret=secret,
        repository=repository,
    )


def _environ(context: Context) -> Mapping[str, str]:
    """The environment, and below it the project's `.env` for what this is about."""
    values = Values.read(context.folder, context.environ)
    found = {name: value for name in TOKEN_NAMES if (value := values.environ.get(name) or values.file.get(name))}
    return {**context.environ, **found}


def _ask(repositories: Iterable[str], environ: Mapping[str, str], desk: Desk, *, secret: str | None) -> None:
    for repository in repositories:
        try:
            require_repository(repository, environ)
        except TryAgainError as exc:
            desk.warn(f"cannot ask whether {repository} opens: {exc.error.message}")
            # Who does not answer once is not asked again.
            return
        except NotFoundError as exc:
            raise NotFoundError(
                f"Hugging Face has no {repository}, or none that the token in {TOKEN} may see; nothing was started",
                hint="is the name right? upper and lower case count",
                repository=repository,
            ) from exc
        except NotReadyError as exc:
            raise _closed(repository, exc, secret) from exc
        except ServiceError as exc:
            desk.warn(f"cannot ask whether {repository} opens: {exc.message}")


def _closed(repository: str, error: NotReadyError, secret: str | None) -> NotReadyError:
    status = error.details.get("status")
    if status is None:
        # It is no token at all, and was not sent.
        return error
    if status == 403:
        message = f"the account of {TOKEN} may not read {repository}: its licence is not accepted"
        hint = f"accept it at {HUGGING_FACE}/{repository} (an answer may take its owner a while); a fine-grained token "
        hint += f"must also be allowed to read gated repositories: {_TOKEN_PAGE}"
    else:
        message = f"Hugging Face does not know the token in {TOKEN}, which is to open {repository}"
        hint = f"make one at {_TOKEN_PAGE} and export {TOKEN} or write it into .env"
    if secret is not None:
        hint += f"; if only the one in the Modal secret {secret} counts, run this without {TOKEN} here"
    return NotReadyError(f"{message}; nothing was started", hint=hint, repository=repository)
