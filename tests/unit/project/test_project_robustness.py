"""Whatever bytes a project file holds, loading it either works or raises ProjectError."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from comfymodal.errors import ProjectError
from comfymodal.project.keys import leaves, sections
from comfymodal.project.load import load_project

SEED = 20240611
ROUNDS = 600
SEEDS = [
    b"version: 1\nproject: x\ncomfyui: {url: 'http://h', args: [a, b], idle_stop: 15m, discover: true}\n",
    b"version: 1\nvolumes:\n  models: &m\n    name: comfy-models\n    path: /data\n  inputs: *m\n",
    b"version: 1\ntarget: modal\ncomfyui: {gpu: [L40S, T4], env: {A: 1.50}, custom_nodes: [a@1], snapshot: off}\n",
    b"version: 1\ncosts: {per_run_usd: 2.50}\ncomfyui: {python_packages: ['a @ https://h/a.whl', b==1], timeout: 2h}\n",
    b"version: 1\nremotes:\n  b2: {type: b2, bucket: abc}\n  s: &s {type: s3, bucket: abc, region: us-east-1}\n"
    b"sync: {a: {from: 'b2:x', to: 'models:/', include: ['*.a']}, b: {from: ./x, to: 'training:/'}}\n",
    b"version: 1\nremotes:\n  st: &s {type: s3, bucket: abc, endpoint: 'https://s3.us-west-004.backblazeb2.com'}\n"
    b"  s2: *s\nmounts: {m: {remote: st, path: /a/b}}\nsync: {a: {from: 'st:', to: 'inputs:/', two_way: true}}\n",
    b'version: 1\nrender:\n  output_dir: "~/out"\n  naming: "{stem}_{index:03}{ext}"\n',
]
PIECES = [
    *(
        b"&a ",
        b"*a",
        b"*m",
        b"!!python/none ",
        b"? ",
        b": ",
        b"- ",
        b"\t",
        b"\n",
        b"\r",
        b"---\n",
        b"...\n",
        b"<<: *m\n",
    ),
    *(
        b"|\n",
        b">-\n",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"'",
        b"\\",
        b"#",
        b"%YAML 1.1\n",
        b"\xff",
        b"\x00",
        b"\xe2\x80\xa8",
    ),
    *(b'"\\ud800"', b'"\\UFFFFFFFF"', b".nan", b"-.inf", b"1e999", b"9" * 5000, b"0x" + b"f" * 300, b"~", b"null"),
    *(b"~nobody/x", b"http://[::1", b"http://h:99999", b"{stem!r:{x}}", b"[" * 60, b"\xef\xbb\xbf", b"\xed\xa0\x80"),
]


def mutate(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.choice([1, 1, 2, 4])):
        at, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        piece = rng.choice([rng.choice(PIECES), rng.randbytes(rng.randrange(4)), data[at : at + 20]])
        data = data[:at] + piece + data[rng.choice([at, at, min(at + 3, end)]) :]
    return data


VALUES: list[object] = [
    *(None, True, 0, 1, -1, 1e-4, 1e300, 10**30, "", "~", "x", "1", "15m", "never", "http://h", "{stem}", "../x", "\0"),
    *("L40S", ["a@1"], ["a==1"], {"A": 1.5, "[key]": None}, {"[key]": {"[key]": 1}}, 2, "off", "2.50", "1h", "modal"),
    *("b2:x", "models:/", "c:x", "C:\\x", "b2:../x", "[a", {"b2": {"type": "b2", "bucket": "abc"}}),
    *([], ["a"], [1, [2]], {}, {"path": "p"}, {"version": 1}, "\ud800", "\u2028", "a\nb", "http://[", "é" * 300),
]


def build_tree(rng: random.Random) -> object:
    tree: dict[str, object] = {"version": 1}
    entries = leaves({"remotes": ["b2"], "sync": ["a"], "mounts": ["m"]})
    for key in rng.sample(
        [*sections(), *entries, "zz", "comfyui.zz", "sync.a.zz", "remotes.b2", "sync.a"], k=rng.randrange(1, 4)
    ):
        at: Any = tree
        *above, name = key.split(".")
        for step in above:
            at = at.setdefault(step, {}) if isinstance(at, dict) else {}
        if isinstance(at, dict):
            at[name] = copy.deepcopy(rng.choice(VALUES))
    return tree


def load_each(folder: Path, texts: Iterable[bytes]) -> tuple[int, int]:
    path, loaded, messages = folder / "comfymodal.yaml", 0, list[str]()
    for text in texts:
        path.write_bytes(text)
        try:
            load_project(path, environ={}, cwd=folder)
            loaded += 1
        except ProjectError as exc:
            messages.append(exc.message)
            # What is shown can be sent as JSON.
            json.dumps(exc.to_dict(), ensure_ascii=False).encode()
    assert all(message.isprintable() for message in messages)
    return loaded, len(messages)


def test_no_bytes_raise_anything_but_project_error(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    loaded, refused = load_each(tmp_path, (mutate(rng, rng.choice(SEEDS)) for _ in range(ROUNDS)))
    # Both ways are taken often, or the mutations are too weak or too wild to mean anything.
    assert min(loaded, refused) > ROUNDS / 60


def test_no_values_raise_anything_but_project_error(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    loaded, refused = load_each(tmp_path, (json.dumps(build_tree(rng)).encode() for _ in range(ROUNDS)))
    assert min(loaded, refused) > ROUNDS / 60


def test_no_env_var_raises_anything_but_project_error(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    names = ["COMFYUI_ARGS", "COMFYUI_URL", "COMFYUI_PYTHON", "RENDER_NAMING", "COMFYUI_IDLE_STOP", "PROJECT"]
    names += ["COMFYUI_ENV", "COMFYUI_GPU", "COMFYUI_CUSTOM_NODES", "COMFYUI_PYTHON_PACKAGES", "COSTS_PER_RUN_USD"]
    for _ in range(ROUNDS // 2):
        pieces = rng.choices(PIECES, k=rng.randrange(1, 4))
        text = b"".join(pieces).decode("utf-8", "surrogateescape")
        try:
            load_project(None, environ={f"COMFYMODAL_{rng.choice(names)}": text}, cwd=tmp_path)
        except ProjectError as exc:
            json.dumps(exc.to_dict(), ensure_ascii=False).encode()
