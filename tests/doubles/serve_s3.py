"""A real S3 server that checks signatures: `rclone serve s3` over a folder, one folder a bucket."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comfymodal.comfyui.server import free_port
from comfymodal.storage.rclone.find import find_rclone
from comfymodal.storage.values import Keys, Remote

KEYS = Keys("AKIDSERVES3DOUBLE", "sEcReT/of+the=double/0123456789")
BUCKET = "models"


@dataclass(frozen=True, slots=True)
class ServedS3:
    url: str
    folder: Path
    """What is put here, below a folder named like a bucket, is served."""

    @property
    def bucket(self) -> Path:
        return self.folder / BUCKET

    def remote(self, prefix: str = "", *, url: str | None = None, name: str = "store") -> Remote:
        return Remote(name, "s3", BUCKET, prefix, url or self.url, "us-east-1")


@contextlib.contextmanager
def serve_s3(folder: Path, *, keeps_hashes: bool = False) -> Iterator[ServedS3]:
    """Serve `folder` until the block ends.

    A real server knows the hashes of what it holds; this one reads the files anew for every listing and request unless
    it `keeps_hashes` (in a folder beside `folder`), which large files need to show anything about speed.
    """
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    process, url = _start(folder, folder.with_name(f"{folder.name}-hashes") if keeps_hashes else None)
    try:
        yield ServedS3(url, folder)
    finally:
        process.terminate()
        process.wait(20)


def _start(folder: Path, hashes: Path | None) -> tuple[subprocess.Popen[bytes], str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")}
    environ |= {"RCLONE_CONFIG": os.devnull, "RCLONE_AUTH_KEY": f'"{KEYS.key_id},{KEYS.key}"'}
    served = str(folder)
    if hashes:
        served = "hashed:"
        environ |= {"RCLONE_CACHE_DIR": str(hashes), "RCLONE_CONFIG_HASHED_TYPE": "hasher"}
        environ |= {"RCLONE_CONFIG_HASHED_REMOTE": str(folder), "RCLONE_CONFIG_HASHED_HASHES": "md5"}
    for _ in range(5):
        port = free_port()
        argv = [str(find_rclone().path), "serve", "s3", "--dir-cache-time", "1s", "--addr", f"127.0.0.1:{port}"]
        process = subprocess.Popen(
            [*argv, served],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            if _answers(url):
                return process, url
            time.sleep(0.02)
    raise RuntimeError("rclone serve s3 does not start")


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
