"""What `doctor` looks at for syncs: rclone, keys, buckets, and each place that a sync pair or a mount reads or writes.

Nothing is ever written. What a key may do is asked of B2; what an S3 server lets it write cannot be told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comfymodal.errors import ComfymodalError, NotReadyError, UsageError
from comfymodal.operations.ends import Pair, pair_of, remote_of
from comfymodal.operations.examine import Check, Finding
from comfymodal.operations.setup import ENV_FILE, Values
from comfymodal.storage.b2_api import PUBLIC_URL, Authorization, FolderLook, authorize, bucket_id, look_into
from comfymodal.storage.ends import FolderEnd, RemoteEnd
from comfymodal.storage.keys import find_keys, key_names
from comfymodal.storage.rclone.find import find_rclone
from comfymodal.storage.rclone.session import region_of
from comfymodal.storage.values import Keys, Remote
from comfymodal.workflow.wording import did_you_mean, listed, near_names

if TYPE_CHECKING:
    from comfymodal.project.schema import Project

CLOCK_TOLERANCE_S = 60.0
EXPIRES_SOON_S = 14 * 86400.0

READ = frozenset({"listFiles", "readFiles"})
WRITE = READ | {"writeFiles"}

_MOST_NAMES = 8


@dataclass(frozen=True, slots=True)
class Use:
    """A folder of a remote that something of the project reads or writes. `remote` has that folder as its prefix."""

    row: str
    remote: Remote
    needs: frozenset[str]
    """Capabilities of B2."""
    is_source: bool
    """Finding nothing there is a mistake."""
    is_here: bool
    """This machine does it, so it needs the keys here."""


@dataclass(slots=True)
class Examined:
    """A remote, and what looking at it has found so far."""

    remote: Remote
    secret: str | None
    uses: tuple[Use, ...]
    keys: Keys | None = field(default=None, repr=False)
    auth: Authorization | None = field(default=None, repr=False)
    look: Callable[[str], FolderLook] | None = field(default=None, repr=False)
    """Lists a folder of the bucket, once it has opened."""

    @property
    def name(self) -> str:
        return self.remote.name


def storage_checks(project: Project, folder: Path, environ: Mapping[str, str]) -> list[Check]:
    """The looks at what this project's syncs need; none without remotes and pairs. `folder` may hold a `.env`."""
    if not project.remotes and not project.sync:
        return []
    pairs, checks = _pairs(project)
    examined = [_examined(project, name, pairs) for name in project.remotes]
    # On Modal a pair of a volume and a folder goes through Modal's API, all others through rclone.
    is_needed = project.target == "local" or any(use.is_here for each in examined for use in each.uses)
    checks.append(Check("rclone", lambda: _look_at_rclone(is_needed=is_needed)))
    for each in examined:
        checks += _remote_checks(each, folder, environ)
    return checks


def _pairs(project: Project) -> tuple[list[Pair], list[Check]]:
    """Those of the project; one that makes no sense on this target is a check that says so."""
    pairs, broken = [], []
    for name in project.sync:
        try:
            pairs.append(pair_of(project, name))
        except UsageError as error:
            told = Finding(
                "fail", error.message, error.hint or "correct it in comfymodal.yaml", NotReadyError.exit_code
            )
            broken.append(Check(f"sync {name}", _teller(told)))
    return pairs, broken


def _teller(finding: Finding) -> Callable[[], Finding]:
    return lambda: finding


def _examined(project: Project, name: str, pairs: list[Pair]) -> Examined:
    whole = remote_of(project, name)
    uses = [use for pair in pairs for use in _uses(pair, name, is_local=project.target == "local")]
    if project.target == "modal":
        mounts = {mount: each for mount, each in project.mounts.items() if each.remote == name}
        uses += [
            Use(f"mount {mount}", remote_of(project, name, each.path).remote, READ, is_source=True, is_here=False)
            for mount, each in mounts.items()
        ]
    if not uses:
        is_here = project.target == "local"
        uses = [Use(f"folder {whole.remote}", whole.remote, READ, is_source=True, is_here=is_here)]
    return Examined(whole.remote, whole.secret, tuple(uses))


def _uses(pair: Pair, name: str, *, is_local: bool) -> list[Use]:
    is_here = is_local or FolderEnd in (type(pair.source), type(pair.target))
    uses = []
    for end in (pair.source, pair.target):
        if isinstance(end, RemoteEnd) and end.remote.name == name:
            is_read_only = end is pair.source and not pair.is_two_way
            needs = READ if is_read_only else WRITE
            uses.append(Use(f"sync {pair.name}", end.remote, needs, is_source=is_read_only, is_here=is_here))
    return uses


def _remote_checks(each: Examined, folder: Path, environ: Mapping[str, str]) -> list[Check]:
    keys, remote = f"keys of {each.name}", f"remote {each.name}"
    look = _look_at_b2 if each.remote.kind == "b2" else _look_at_s3
    checks = [
        Check(keys, lambda: _look_at_keys(each, folder, environ)),
        Check(remote, lambda: look(each), (keys,)),
    ]
    if each.remote.kind == "s3" and region_of(each.remote.endpoint):
        checks.append(Check(f"rights of {each.name}", lambda: _look_at_rights(each), (keys,)))
    return checks + [Check(use.row, partial(_look_at_use, each, use), (remote,)) for use in each.uses]


def _look_at_rclone(*, is_needed: bool) -> Finding:
    try:
        return Finding("ok", str(find_rclone()))
    except NotReadyError as error:
        if is_needed:
            raise
        return Finding("not used", f"{error.message}; Modal's containers have their own")


def _look_at_keys(each: Examined, folder: Path, environ: Mapping[str, str]) -> Finding:
    local = Values.read(folder, environ)
    merged = {**local.file, **{name: value for name, value in environ.items() if value}}
    is_any_set = any(merged.get(name, "").strip() for pair in key_names(each.remote) for name in pair)
    if not is_any_set and not any(use.is_here for use in each.uses):
        return Finding("skipped", f"none on this machine; on Modal the secret {each.secret} counts")
    each.keys = find_keys(each.remote, merged)
    names = next(pair for pair in key_names(each.remote) if merged.get(pair[0], "").strip() == each.keys.key_id)
    sources = dict.fromkeys("the environment" if environ.get(name) else ENV_FILE for name in names)
    return Finding("ok", f"{' and '.join(names)}, from {' and '.join(sources)}")


def _look_at_b2(each: Examined) -> Finding:
    assert each.keys is not None
    auth = each.auth = authorize(each.keys.key_id, each.keys.key, each.remote.endpoint or PUBLIC_URL)
    if (wrong := _wrong_bucket(auth, each.remote)) is not None:
        return wrong
    found = bucket_id(auth, each.remote.bucket)
    if found is None:
        what = f"the account has no bucket {each.remote.bucket}"
        return Finding(
            "fail", what, "correct the remote's bucket, or make it in the B2 console", NotReadyError.exit_code
        )
    each.look = lambda folder: look_into(auth, found, folder)
    return _in_time(auth, f"bucket {each.remote.bucket} opens; {_limits(auth)}")


def _look_at_s3(each: Examined) -> Finding:
    from comfymodal.storage.s3_api import S3Bucket, wrong_region

    assert each.keys is not None
    bucket = S3Bucket(each.remote, each.keys)
    # Keys that are limited to a folder may not list the whole bucket.
    look = bucket.look(each.uses[0].remote.prefix)
    if look.region is not None and look.region != bucket.region:
        raise wrong_region(each.remote.bucket, bucket.region, look.region)
    each.look = bucket.look_into
    if look.ahead_s is not None and abs(look.ahead_s) > CLOCK_TOLERANCE_S:
        way = "ahead of" if look.ahead_s > 0 else "behind"
        what = (
            f"this machine's clock is {abs(look.ahead_s):.0f} s {way} the server's, which takes signatures by the clock"
        )
        return Finding("warn", what, "let the system set its clock from the network (NTP)")
    where = f"{each.remote.endpoint or 'Amazon'}, region {bucket.region}"
    return Finding("ok", f"bucket {each.remote.bucket} opens at {where}")


def _look_at_rights(each: Examined) -> Finding:
    """Backblaze by its S3 API takes the same keys, and only its own API tells what they may do."""
    assert each.keys is not None
    auth = each.auth = authorize(each.keys.key_id, each.keys.key)
    if each.keys.key_id == auth.account_id:
        what = "these are the master key's, which the S3 API does not take"
        return Finding("fail", what, "make an application key", NotReadyError.exit_code)
    if auth.s3_url and auth.s3_url.rstrip("/") != each.remote.endpoint:
        what = f"the account's S3 address is {auth.s3_url}, not {each.remote.endpoint}"
        return Finding("fail", what, f"write endpoint: {auth.s3_url}", NotReadyError.exit_code)
    return _wrong_bucket(auth, each.remote) or _in_time(auth, _limits(auth))


def _wrong_bucket(auth: Authorization, remote: Remote) -> Finding | None:
    if auth.buckets is None or remote.bucket in auth.buckets:
        return None
    if not auth.buckets:
        return Finding("fail", "the key's bucket was deleted", "make a new application key", NotReadyError.exit_code)
    what = f"the key is for the bucket {listed(auth.buckets)}, not for {remote.bucket}"
    hint = f"write bucket: {next(iter(auth.buckets))}, or make a key for {remote.bucket}"
    return Finding("fail", what, hint, NotReadyError.exit_code)


def _limits(auth: Authorization) -> str:
    buckets = "all buckets" if auth.buckets is None else listed(auth.buckets)
    names = f", names from {auth.prefix}" if auth.prefix else ""
    rights = ", ".join(
        right for right in sorted(auth.capabilities) if right.endswith("Files") or right == "listBuckets"
    )
    return f"the key is for {buckets}{names}: {rights or 'it may do nothing'}"


def _in_time(auth: Authorization, told: str) -> Finding:
    if auth.expires_at is None:
        return Finding("ok", told)
    day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(auth.expires_at))
    left_s = auth.expires_at - time.time()
    if left_s <= 0:
        return Finding("fail", f"the key expired on {day}", "make a new application key", NotReadyError.exit_code)
    if left_s < EXPIRES_SOON_S:
        return Finding("warn", f"{told}; it expires on {day}", "make a new application key before")
    return Finding("ok", f"{told}; it expires on {day}")


def _look_at_use(each: Examined, use: Use) -> Finding:
    assert each.look is not None
    if (refused := _refused(each.auth, use)) is not None:
        return refused
    folder = use.remote.prefix
    found = each.look(folder)
    if found.is_empty:
        return _empty(each.look, use)
    told = f"{use.remote}: {_count(found.files, 'file')} and {_count(len(found.folders), 'folder')} at the top"
    if "writeFiles" not in use.needs:
        return Finding("ok", told)
    if each.auth is None:
        return Finding("ok", f"{told}; whether it may be written to was not tried")
    if "deleteFiles" not in each.auth.capabilities:
        what = f"{told}; the key lacks deleteFiles, so `--delete` and `trash empty` may fail there"
        return Finding("warn", what, "make a key with it, if you want those")
    return Finding("ok", told)


def _refused(auth: Authorization | None, use: Use) -> Finding | None:
    if auth is None:
        return None
    code = NotReadyError.exit_code
    if lacks := sorted(use.needs - auth.capabilities):
        verb = "written to" if "writeFiles" in use.needs else "read"
        what = f"{use.remote} cannot be {verb}: the key lacks {', '.join(lacks)}"
        return Finding("fail", what, f"make a key that has {', '.join(sorted(use.needs))}", code)
    folder = f"{use.remote.prefix}/" if use.remote.prefix else ""
    if not folder.startswith(auth.prefix):
        what = (
            f"the key may only use names that begin with {auth.prefix}, not {use.remote.prefix or 'the whole bucket'}"
        )
        return Finding("fail", what, "name a folder in there, or make a key without that limit", code)
    return None


def _empty(look: Callable[[str], FolderLook], use: Use) -> Finding:
    missing, beside = _what_is_beside(look, use.remote.prefix)
    near = did_you_mean(near_names(missing, beside))
    if not use.is_source:
        return Finding("ok", f"{use.remote}: nothing there yet", near)
    hint = near or (f"there is: {listed(beside, limit=_MOST_NAMES)}" if beside else "correct its bucket or prefix")
    return Finding("warn", f"{use.remote}: there are no files, so a sync from there refuses", hint)


def _what_is_beside(look: Callable[[str], FolderLook], folder: str) -> tuple[str, tuple[str, ...]]:
    """The first part of the path that is not there, and the folders that are in its place."""
    missing, above = folder, folder
    while above:
        above, _, missing = above.rpartition("/")
        try:
            found = look(above)
        except ComfymodalError:
            # The key may not look outside of what it is for.
            return missing, ()
        if not found.is_empty:
            return missing, found.folders
    return missing, ()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
