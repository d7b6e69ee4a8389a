"""Buckets to sync with: a real S3 server and our fake of B2's native API, each behind a proxy that makes faults."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from comfymodal.storage.rclone.find import find_rclone
from comfymodal.storage.rclone.session import Session, open_session
from comfymodal.storage.values import Keys, Remote
from tests.doubles import serve_s3 as s3_double
from tests.doubles.b2_native import B2Native
from tests.doubles.serve_s3 import ServedS3
from tests.doubles.serving import serve
from tests.doubles.storage_proxy import StorageProxy, storage_proxy


@dataclass(frozen=True, slots=True)
class Store:
    """A remote with the server behind it and a proxy between."""

    session: Session
    remote: Remote
    keys: Keys
    proxy: StorageProxy
    put: Callable[[str, bytes], None]
    """Put a file there behind rclone's back, by path relative to the remote."""
    files: Callable[[], Mapping[str, bytes]]
    """What is there, by path relative to the remote."""
    remove: Callable[[str], None]
    """Delete a file there behind rclone's back."""

    def at(self, **changes: str) -> Remote:
        return replace(self.remote, **changes)  # type: ignore[arg-type]

    @property
    def seen(self) -> dict[str, bytes]:
        """What is there but our own folder."""
        return {path: data for path, data in self.files().items() if not path.startswith(".comfymodal/")}


def session_for(remote: Remote, keys: Keys) -> Session:
    return open_session(find_rclone(), {remote.name: (remote, keys)}, os.environ)


@contextlib.contextmanager
def s3_store(served: ServedS3, prefix: str = "pre/fix") -> Iterator[Store]:
    root = served.bucket / prefix

    def put(path: str, data: bytes) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)

    def files() -> dict[str, bytes]:
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    with storage_proxy(served.url) as proxy:
        remote = served.remote(prefix, url=proxy.url)
        keys = s3_double.KEYS
        yield Store(session_for(remote, keys), remote, keys, proxy, put, files, lambda path: (root / path).unlink())


@contextlib.contextmanager
def b2_store(account: B2Native, prefix: str = "pre/fix") -> Iterator[Store]:
    def put(path: str, data: bytes) -> None:
        account.put(f"{prefix}/{path}", data)

    def files() -> dict[str, bytes]:
        return {name.removeprefix(f"{prefix}/"): data for name, data in account.files().items()}

    def remove(path: str) -> None:
        account.remove(f"{prefix}/{path}")

    with serve(account.app()) as served, storage_proxy(served.url) as proxy:
        remote = Remote("b2", "b2", "models", prefix, proxy.url)
        keys = Keys(account.key.key_id, account.key.key)
        yield Store(session_for(remote, keys), remote, keys, proxy, put, files, remove)


@contextlib.contextmanager
def both(folder: Path) -> Iterator[dict[str, Store]]:
    with s3_double.serve_s3(folder) as served, s3_store(served) as s3, b2_store(B2Native()) as b2:
        yield {"s3": s3, "b2": b2}
