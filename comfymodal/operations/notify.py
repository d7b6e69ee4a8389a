"""Tell those whom the project names under `notify` how runs ended and which part of a budget is spent.

It is the operator's side that tells, when it settles a run: a detached one is told of by the first command that sees
its end. What goes wrong here is a warning, and never changes how a command ends.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from comfymodal.costs.budget import Limit
from comfymodal.costs.rates import money_json
from comfymodal.errors import ComfymodalError
from comfymodal.notify.message import Event, Notification
from comfymodal.notify.send import Receiver, send
from comfymodal.notify.web import PATIENCE_S, NotSentError
from comfymodal.operations.context import Context
from comfymodal.operations.desk import Desk
from comfymodal.operations.setup import Values
from comfymodal.operations.views import iso_time
from comfymodal.secret_shapes import without_secrets

API_VARIABLE = "SLACK_API_URL"
"""Env var with another base of Slack's Web API, such as https://slack-gov.com/api."""

_SHORTEST_SECRET = 8
"""Hiding less than that would tear words."""

_LOOK_S = 0.1
"""How often Ctrl-C is heard while something is waited for; on Windows a lock does not hear it."""


def notify_runs(context: Context, desk: Desk) -> None:
    """Tell of the runs that this command has settled, each once. Ctrl-C ends it, and the command goes on."""
    from comfymodal.operations.notify_run import notification_of, wanted_event

    ended = context.news.take()
    with _never_failing(desk):
        round_ = _Round(context, desk)
        for run_id in ended:
            run = context.ledger.get(run_id)
            event = wanted_event(run)
            names = [] if event is None else names_for(context, event, run.created_at, run.ended_at)
            if (
                event is None
                or not names
                or not round_.may_answer(names)
                or not context.ledger.tell_once(run_id, event)
            ):
                continue
            with_picture = any(context.project.notify[name].channel for name in names)
            told = notification_of(run, event, context, with_picture=with_picture)
            round_.tell(told, names)


def notify_budget(context: Context, desk: Desk, limit: Limit, gone: int, percent: int) -> None:
    """Tell that so many percent of a budget, `gone` nanodollars and more, are spent or set aside.

    Whoever calls it sees to it that nobody is told twice. Never raises, and never takes longer than `PATIENCE_S`.
    """
    names = names_for(context, "budget", None, None)
    if not names:
        return
    with _never_failing(desk):
        budget = {
            "name": limit.name,
            "spent": money_json(gone),
            "limit": money_json(limit.nanodollars),
            "threshold": percent / 100,
            "since": iso_time(limit.since),
        }
        told = Notification("budget", context.project.project, _now(), budget=budget, next="comfymodal costs budget")
        _Round(context, desk).tell(told, names)


def names_for(context: Context, event: Event, created_at: float | None, ended_at: float | None) -> list[str]:
    """Who wants to hear of this event; the times are those of the run it is about."""
    seconds = 0.0 if created_at is None or ended_at is None else ended_at - created_at
    return [
        name
        for name, entry in context.project.notify.items()
        if event in entry.on and (created_at is None or seconds >= entry.min_seconds)
    ]


def receiver_of(name: str, context: Context) -> Receiver:
    """A receiver with its secret. Raises `NotSentError` where there is none, and `InputFileError` (`.env`)."""
    return find_receiver(name, context.project.notify[name], Values.read(context.folder, context.environ))


def find_receiver(name: str, entry: Any, values: Values) -> Receiver:
    """`entry` is a `schema.Receiver`. Raises `NotSentError` for one whose secret is not set."""
    variable = str(entry.url_env or entry.token_env)
    secret = (values.environ.get(variable) or values.file.get(variable) or "").strip()
    if not secret:
        raise NotSentError(f"{variable} is not set here", hint=how_to_set(entry))
    api = values.environ.get(API_VARIABLE) or values.file.get(API_VARIABLE)
    return Receiver(name, entry.type, variable, secret, entry.channel, **({"api": api} if api else {}))


def how_to_set(entry: Any) -> str:
    """Where the operator gets the secret of a `schema.Receiver`, and where it goes."""
    if entry.token_env:
        return (
            f"export {entry.token_env}, or write it into .env here; the token is at https://api.slack.com/apps (OAuth "
            "& Permissions): Modal gives what is in its secret slack-credentials to containers only"
        )
    where = "; it is at https://api.slack.com/apps (Incoming Webhooks)" if entry.type == "slack" else ""
    return f"export {entry.url_env}, or write it into .env here{where}"


def deliver(told: Notification, receiver: Receiver) -> Callable[[], str | None]:
    """Begin to send; the function returned tells how it went, as `notify.send.send` does, once it is known."""
    began = _Job(lambda: send(_clean(told, receiver.secret), receiver, until=time.monotonic() + PATIENCE_S))
    return began.result


@dataclass(slots=True)
class _Job:
    """Work in a thread that nobody has to wait for: not even the end of Python does."""

    work: Callable[[], Any]
    until: float = field(default_factory=lambda: time.monotonic() + PATIENCE_S)
    _thread: threading.Thread = field(init=False)
    _came: list[Any] = field(init=False, default_factory=list)
    _failed: list[Exception] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
        self._thread.start()

    def result(self) -> Any:
        """Raises what the work raised, and `NotSentError` when it takes too long."""
        while self._thread.is_alive() and time.monotonic() < self.until:
            self._thread.join(_LOOK_S)
        if self._failed:
            raise self._failed[0]
        if not self._came:
            raise NotSentError(f"no answer within {PATIENCE_S:.0f} s")
        return self._came[0]

    def _run(self) -> None:
        try:
            self._came.append(self.work())
        except Exception as exc:  # noqa: BLE001 - raised again where it is waited for
            self._failed.append(exc)


def within_patience(work: Callable[[], Any]) -> Any:
    """What the work returns; None when it fails or takes too long: a message goes without it."""
    try:
        return _Job(work).result()
    except Exception:  # noqa: BLE001 - a log that is not there, a server that is away, a picture nobody can read
        return None


class _Round:
    """Sends to several receivers at once. One that failed is not tried again: the operator waits."""

    def __init__(self, context: Context, desk: Desk) -> None:
        self._context, self._desk = context, desk
        self._broken: set[str] = set()

    def may_answer(self, names: Iterable[str]) -> bool:
        return not self._broken.issuperset(names)

    def tell(self, told: Notification, names: Sequence[str]) -> None:
        begun: dict[str, Callable[[], str | None]] = {}
        for name in names:
            if name not in self._broken:
                with self._warning_of(name):
                    begun[name] = deliver(told, receiver_of(name, self._context))
        for name, result in begun.items():
            with self._warning_of(name):
                if lacks := result():
                    self._desk.warn(f"notify {name}: told without its picture: {lacks}")

    @contextlib.contextmanager
    def _warning_of(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - a run does not fail because of a message
            self._broken.add(name)
            self._desk.warn(f"notify {name}: not told: {why_not(exc)}")


@contextlib.contextmanager
def _never_failing(desk: Desk) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        desk.warn("notify: interrupted; perhaps not everybody was told")
    except Exception as exc:  # noqa: BLE001 - a run does not fail because of a message
        desk.warn(f"notify: nobody was told: {why_not(exc)}")


def why_not(exc: Exception) -> str:
    """Words of ours; what somebody else says may hold a secret."""
    if isinstance(exc, NotSentError):
        return f"{exc.why} ({exc.hint})" if exc.hint else exc.why
    return exc.message if isinstance(exc, ComfymodalError) else type(exc).__name__


def _clean(told: Notification, secret: str) -> Notification:
    """Without anything that has the shape of a secret, and without the receiver's own."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return without_secrets(value.replace(secret, "***") if len(secret) >= _SHORTEST_SECRET else value)
        if isinstance(value, Mapping):
            return {key: clean(each) for key, each in value.items()}
        return [clean(each) for each in value] if isinstance(value, list | tuple) else value

    texts = {each.name: clean(getattr(told, each.name)) for each in fields(told) if each.name != "picture"}
    return replace(told, **texts)


def _now() -> str:
    return iso_time(time.time())
