"""Remotes, sync pairs and mounts of the project file: what is read, and how mistakes in them are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import ProjectError
from comfymodal.operations.config import ConfigRow, config_schema, show_config
from comfymodal.project.ends import ROLES
from comfymodal.project.load import LoadedProject, load_project
from comfymodal.project.schema import Volumes
from comfymodal.storage.names import OWN_FOLDER

REMOTES = "version: 1\nremotes: {b2: {type: b2, bucket: abc}, store: {type: s3, bucket: abc}}\n"


def load(folder: Path, text: str) -> LoadedProject:
    path = folder / "comfymodal.yaml"
    path.write_text(text)
    return load_project(path, environ={}, cwd=folder)


def refusals(folder: Path, text: str) -> list[tuple[str, str, str | None]]:
    with pytest.raises(ProjectError) as caught:
        load(folder, text)
    problems = caught.value.details["problems"]
    return [(f"{one['line']}:{one['column']} {one['key']}", one["message"], one["hint"]) for one in problems]


def refusal(folder: Path, text: str) -> tuple[str, str, str | None]:
    (found,) = refusals(folder, text)
    return found


FULL = """\
version: 1
volumes:
  training: {name: my-loras, path: loras}
remotes:
  store:
    type: s3
    bucket: my.models
    prefix: /comfy/models/
    endpoint: https://s3.us-west-004.backblazeb2.com/
    region: us-west-004
    secret: my-keys
  b2: {type: b2, bucket: my-models, endpoint: "http://127.0.0.1:9000"}
sync:
  models: {from: store:sdxl, to: "models:/", include: ["*.safetensors", "loras/**"], exclude: ["*.ckpt"]}
  2-up: {from: training:/loras, to: ../backup, two_way: true}
mounts:
  cold: {remote: store, path: cold/}
"""


def test_remotes_pairs_and_mounts_are_read(tmp_path: Path) -> None:
    settings = load(tmp_path, FULL).settings
    store, b2 = settings.remotes["store"], settings.remotes["b2"]
    assert (store.type, store.bucket, store.prefix, store.region) == ("s3", "my.models", "comfy/models", "us-west-004")
    assert (store.endpoint, store.secret) == ("https://s3.us-west-004.backblazeb2.com", "my-keys")
    assert (b2.prefix, b2.endpoint, b2.region, b2.secret) == ("", "http://127.0.0.1:9000", None, "b2-credentials")
    models, up = settings.sync["models"], settings.sync["2-up"]
    assert (models.from_, models.to, models.two_way) == ("store:sdxl", "models:/", False)
    assert (models.include, models.exclude) == (("*.safetensors", "loras/**"), ("*.ckpt",))
    # A folder is relative to the project file.
    assert (up.from_, up.to, up.two_way) == ("training:/loras", str(tmp_path.parent / "backup"), True)
    assert (settings.mounts["cold"].remote, settings.mounts["cold"].path) == ("store", "cold")
    assert (settings.volumes.training.name, settings.volumes.training.path) == ("my-loras", tmp_path / "loras")


def test_volumes_have_the_names_of_the_guide(tmp_path: Path) -> None:
    volumes = load(tmp_path, "version: 1\n").settings.volumes
    assert (volumes.datasets.name, volumes.training.name) == ("comfy-datasets", "training-data")
    assert tuple(Volumes.model_fields) == ROLES


def test_config_show_has_a_row_for_each_key_of_an_entry_with_its_line(tmp_path: Path) -> None:
    rows = {row.key: row for row in show_config(load(tmp_path, FULL)).rows}
    source = "file comfymodal.yaml:"
    assert rows["sync.models.from"] == ConfigRow("sync.models.from", "store:sdxl", f"{source}14", "run")
    assert rows["sync.models.include"].value == ["*.safetensors", "loras/**"]
    assert rows["sync.models.two_way"] == ConfigRow("sync.models.two_way", False, "default", "run")
    assert rows["remotes.store.prefix"] == ConfigRow("remotes.store.prefix", "comfy/models", f"{source}8", "run")
    assert rows["remotes.store.secret"] == ConfigRow("remotes.store.secret", "my-keys", f"{source}11", "")
    assert rows["mounts.cold.remote"].read_at == ""
    keys = list(rows)
    assert keys.index("volumes.training.name") < keys.index("remotes.store.type") < keys.index("remotes.b2.type")
    assert keys.index("sync.2-up.to") < keys.index("mounts.cold.path") < keys.index("comfyui.url")


def test_config_show_says_when_entries_take_effect_on_modal(tmp_path: Path) -> None:
    rows = {row.key: row.read_at for row in show_config(load(tmp_path, f"{FULL}target: modal\n")).rows}
    keys = ("mounts.cold.path", "remotes.store.secret", "sync.models.from", "volumes.training.version")
    assert [rows[key] for key in keys] == ["deploy", "run", "run", "run"]
    assert rows["volumes.models.name"] == "deploy"
    assert rows["volumes.datasets.name"] == "run"


def test_the_json_schema_knows_the_names_and_keys_of_entries() -> None:
    schema = config_schema()
    for place, part in (("remotes", "Remote"), ("sync", "SyncPair"), ("mounts", "Mount")):
        found = schema["properties"][place]
        assert found["patternProperties"] == {"^[a-z0-9][a-z0-9_-]{0,39}$": {"$ref": f"#/$defs/{part}"}}
        assert found["additionalProperties"] is False
    assert schema["$defs"]["SyncPair"]["required"] == ["from", "to"]
    assert schema["$defs"]["Remote"]["required"] == ["type", "bucket"]


QUOTES = "put quotes around it"
NAME = "must be a name of 1 to 40 lower-case letters, digits, dashes and underscores, no dash first"
BUCKET = "must be the name of a bucket: 3 to 63 letters, digits, dots, dashes and underscores"
KEYS = "keys come from env vars here, and on Modal from the secret that `secret` names; never from this file"
BACKBLAZE = "https://s3.us-west-004.backblazeb2.com"


def remote_case(value: str, place: str, message: str, hint: str | None = None) -> Any:
    return pytest.param(value, place, message, hint, id=value[:60])


@pytest.mark.parametrize(
    ("value", "place", "message", "hint"),
    [
        remote_case("b2: ", "2:14 remotes.b2", "has no keys", "write its keys below it, indented, or remove the line"),
        remote_case("b2: {type: b2}", "2:15 remotes.b2.bucket", "is missing",
                    "keys here: type, bucket, prefix, endpoint, region, secret"),
        remote_case("b2: {type: B2, bucket: abc}", "2:22 remotes.b2.type", "must be 'b2' or 's3', not \"B2\""),
        remote_case("b2: {type: b2, bukket: abc, bucket: abc}", "2:26 remotes.b2.bukket", "unknown key",
                    "did you mean `bucket`"),
        remote_case("b2: {type: b2, bucket: abc, key_id: abc}", "2:39 remotes.b2.key_id", "unknown key", KEYS),
        remote_case("b2: {type: b2, bucket: abc, secret_key: abc}", "2:39 remotes.b2.secret_key", "unknown key", KEYS),
        remote_case("b2: {type: b2, bucket: abc, comfyui: abc}", "2:39 remotes.b2.comfyui", "unknown key",
                    "`comfyui` belongs at the top of the file"),
        remote_case("b2: {type: b2, bucket: abc, include: abc}", "2:39 remotes.b2.include", "unknown key",
                    "`include` belongs under `sync.NAME`"),
        remote_case("b2: {type: b2, bucket: 2.0}", "2:34 remotes.b2.bucket", "must be text, not 2.0", QUOTES),
        remote_case("b2: {type: b2, bucket: true}", "2:34 remotes.b2.bucket", "must be text, not true", QUOTES),
        remote_case("b2: {type: b2, bucket: ab}", "2:34 remotes.b2.bucket", BUCKET),
        remote_case("b2: {type: b2, bucket: -ab}", "2:34 remotes.b2.bucket", BUCKET),
        remote_case("b2: {type: b2, bucket: abc/x}", "2:34 remotes.b2.bucket", BUCKET,
                    "write the bucket alone; a folder in it goes under prefix"),
        remote_case("b2: {type: b2, bucket: abc, prefix: a/../b}", "2:47 remotes.b2.prefix",
                    "must not climb out of its place with `..`"),
        remote_case("b2: {type: b2, bucket: abc, prefix: a//b}", "2:47 remotes.b2.prefix",
                    "must not contain empty parts or `.` between slashes"),
        remote_case("b2: {type: b2, bucket: abc, prefix: 'a\\b'}", "2:47 remotes.b2.prefix",
                    "must not contain backslashes or control characters; write / between folders"),
        remote_case("b2: {type: b2, bucket: abc, region: us-west-004}", "2:47 remotes.b2.region",
                    "counts only for type s3", "remove it: Backblaze knows its own"),
        remote_case(f"b2: {{type: b2, bucket: abc, endpoint: '{BACKBLAZE}'}}", "2:49 remotes.b2.endpoint",
                    "is Backblaze's S3 address, and type b2 does not speak S3",
                    "remove it, or write type: s3 to use the S3 address"),
        remote_case(f"st: {{type: s3, bucket: abc, region: us-west-001, endpoint: '{BACKBLAZE}'}}",
                    "2:47 remotes.st.region", "is us-west-001, and the endpoint is in us-west-004",
                    "remove region here"),
        remote_case("st: {type: s3, bucket: abc, endpoint: 'https://abc.s3.us-west-004.backblazeb2.com'}",
                    "2:49 remotes.st.endpoint", "is not the S3 address of a region of Backblaze",
                    f"it looks like {BACKBLAZE}; the bucket's page shows it, and the bucket itself goes under bucket"),
        remote_case("st: {type: s3, bucket: abc, endpoint: s3.us-west-004.backblazeb2.com}",
                    "2:49 remotes.st.endpoint",
                    f"must be an http:// or https:// address with a host, for example {BACKBLAZE}"),
        remote_case("st: {type: s3, bucket: abc, endpoint: 'https://me:pw@h'}", "2:49 remotes.st.endpoint",
                    "must not contain a user name or password: secrets are names, never values"),
        remote_case("st: {type: s3, bucket: abc, region: EU}", "2:47 remotes.st.region",
                    "must be lower-case letters, digits and dashes, for example us-east-1"),
        remote_case("st: {type: s3, bucket: abc, secret: A=b}", "2:47 remotes.st.secret",
                    "must be 1 to 64 letters, digits, dots, dashes and underscores"),
        remote_case("B2: {type: b2, bucket: abc}", "2:11 remotes.B2", NAME),
        remote_case("a.b: {type: b2, bucket: abc}", "2:11 remotes.a.b", NAME),
        remote_case("2.0: {type: b2, bucket: abc}", "2:11 remotes.2.0", NAME),
        remote_case("c: {type: b2, bucket: abc}", "2:11 remotes.c",
                    "must have more than one letter: a single one is a drive of Windows"),
        remote_case("models: {type: b2, bucket: abc}", "2:11 remotes.models",
                    "is what a volume is called; choose another name for the remote"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_remote_has_its_place_and_a_hint(
    tmp_path: Path, value: str, place: str, message: str, hint: str | None
) -> None:
    assert refusal(tmp_path, f"version: 1\nremotes: {{{value}}}\n") == (place, message, hint)


NONE_SUCH = "remotes: b2, store; volumes: models, inputs, outputs, datasets, training, cache"
SAME = "has the same place at both ends"
BESIDE = "choose folders beside each other"


def pair_case(pair: str, place: str, message: str, hint: str | None = None) -> Any:
    return pytest.param(pair, place, message, hint, id=pair)


@pytest.mark.parametrize(
    ("pair", "place", "message", "hint"),
    [
        pair_case("{from: 'stor:x', to: 'models:/'}", "3:18 sync.a.from", "has no remote and no volume called stor",
                  f"did you mean `store:`? {NONE_SUCH}"),
        pair_case("{from: 'b2:', to: 'Models:/'}", "3:29 sync.a.to", "has no remote and no volume called Models",
                  f"did you mean `models:`? {NONE_SUCH}"),
        pair_case("{from: 'qqqqqq:x', to: 'models:/'}", "3:18 sync.a.from",
                  "has no remote and no volume called qqqqqq", NONE_SUCH),
        pair_case("{from: b2, to: 'models:/'}", "3:18 sync.a.from", "must say which place it is",
                  "write b2:folder for the remote, or ./b2 for a folder here"),
        pair_case("{from: 'b2:', to: models}", "3:29 sync.a.to", "must say which place it is",
                  "write models:/ for the volume, or ./models for a folder here"),
        pair_case("{from: 'b2://abc/x', to: 'models:/'}", "3:18 sync.a.from",
                  "must be a place of the project, not an address",
                  "name its bucket under `remotes` (or use one that is there), then write REMOTE:folder without the "
                  "bucket"),
        pair_case("{from: 'c:models', to: 'models:/'}", "3:18 sync.a.from", "must be a whole path, as in c:\\models",
                  "names of remotes have more than one letter"),
        pair_case("{from: 'b2:a/../../x', to: 'models:/'}", "3:18 sync.a.from",
                  "must not climb out of its place with `..`"),
        pair_case("{from: 'b2:x', to: 'models:/..'}", "3:30 sync.a.to", "must not climb out of its place with `..`"),
        pair_case("{from: 'b2:x', to: 'models:/.comfymodal/trash'}", "3:30 sync.a.to",
                  "must not be .comfymodal: comfymodal keeps its own files there"),
        pair_case("{from: 'b2:x', to: 'models:loras\\a'}", "3:30 sync.a.to",
                  "must not contain backslashes or control characters; write / between folders"),
        pair_case('{from: "b2:x\\ny", to: "models:/"}', "3:18 sync.a.from",
                  "must be UTF-8 text without control characters"),
        pair_case("{from: '', to: 'models:/'}", "3:18 sync.a.from", "must name a place",
                  "write REMOTE:folder, VOLUME:/folder or a folder of this machine (./folder)"),
        pair_case("{from: '~nobody-here/x', to: 'models:/'}", "3:18 sync.a.from",
                  "nobody called nobody-here has a home folder here"),
        pair_case("{from: 2.0, to: 'models:/'}", "3:18 sync.a.from", "must be text, not 2.0", QUOTES),
        pair_case("{to: 'models:/'}", "3:11 sync.a.from", "is missing",
                  "keys here: from, to, include, exclude, two_way"),
        pair_case("{form: x, from: 'b2:', to: 'models:/'}", "3:12 sync.a.form", "unknown key", "did you mean `from`"),
        pair_case("{from: 'b2:', to: 'models:/', two_way: yes}", "3:50 sync.a.two_way",
                  'must be true or false, not "yes"', "yes, no, on and off are plain text here"),
        pair_case("{from: 'b2:', to: 'models:/', include: '*.a'}", "3:50 sync.a.include",
                  'must be a list, not "*.a"'),
        pair_case("{from: 'b2:', to: 'models:/', exclude: ['*.a', '[a']}", "3:58 sync.a.exclude[1]",
                  "'[a' is no pattern for files: a [ without ]",
                  "examples: *.ckpt  loras/**  /checkpoints/*.safetensors"),
        pair_case("{from: 'b2:', to: 'store:x'}", "3:29 sync.a",
                  "has two remotes (b2, store): one end must be a volume or a folder",
                  "sync the first to a volume, then the volume to the second"),
        pair_case("{from: 'models:a', to: 'models:/a/'}", "3:34 sync.a", SAME),
        pair_case("{from: 'models:/a', to: 'models:/'}", "3:35 sync.a",
                  "has one end inside the other: the source lies in its target", BESIDE),
        pair_case("{from: 'models:/a', to: 'models:/a/b'}", "3:35 sync.a",
                  "has one end inside the other: the target lies in its source", BESIDE),
        pair_case("{from: '.', to: '.'}", "3:27 sync.a", SAME),
        pair_case(r"{from: 'C:\a', to: 'c:/A/b'}", "3:30 sync.a",
                  "has one end inside the other: the target lies in its source", BESIDE),
    ],
)  # fmt: skip
def test_a_mistake_in_a_pair_has_its_place_and_a_hint(
    tmp_path: Path, pair: str, place: str, message: str, hint: str | None
) -> None:
    assert refusal(tmp_path, f"{REMOTES}sync: {{a: {pair}}}\n") == (place, message, hint)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *(("models:/a", "models:/b"), ("models:/a", "models:/ab"), ("models:/", "outputs:/"), ("b2:a", "./a")),
        *((r"C:\models", "b2:a"), ("/a/b:c", "models:/"), ("./models", "models:/"), ("a/b", "~/b")),
    ],
)
def test_pairs_that_only_resemble_mistakes_are_fine(tmp_path: Path, source: str, target: str) -> None:
    pair = load(tmp_path, f"{REMOTES}sync: {{a: {{from: '{source}', to: '{target}'}}}}\n").settings.sync["a"]
    assert pair.to


def test_what_storage_keeps_for_itself_is_no_end(tmp_path: Path) -> None:
    text = f"{REMOTES}sync: {{a: {{from: 'b2:/{OWN_FOLDER}', to: 'models:/'}}}}\n"
    assert refusal(tmp_path, text)[1] == f"must not be {OWN_FOLDER}: comfymodal keeps its own files there"


def test_two_roles_may_share_a_volume_and_then_are_one_place(tmp_path: Path) -> None:
    text = (
        f"{REMOTES}volumes: {{inputs: {{name: comfy-models}}}}\nsync: {{a: {{from: 'inputs:/x', to: 'models:/x'}}}}\n"
    )
    assert refusal(tmp_path, text)[:2] == ("4:35 sync.a", SAME)


@pytest.mark.parametrize(
    ("mount", "place", "message", "hint"),
    [
        ("{remote: stor}", "3:22 mounts.m.remote", "has no remote called stor", "did you mean `store`"),
        ("{remote: qqqqqq}", "3:22 mounts.m.remote", "has no remote called qqqqqq", "remotes: b2, store"),
        ("{remote: 'store:x'}", "3:22 mounts.m.remote", "has no remote called store:x", "did you mean `store`"),
        ("{remote: b2}", "3:22 mounts.m.remote", "must be a remote of type s3, and b2 is of type b2",
         "add the bucket a second time with type: s3 and Backblaze's S3 address as its endpoint"),
        ("{remote: store, path: ../x}", "3:35 mounts.m.path", "must not climb out of its place with `..`", None),
        ("{}", "3:13 mounts.m.remote", "is missing", "keys here: remote, path"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_mount_has_its_place_and_a_hint(
    tmp_path: Path, mount: str, place: str, message: str, hint: str | None
) -> None:
    assert refusal(tmp_path, f"{REMOTES}mounts: {{m: {mount}}}\n") == (place, message, hint)


def test_mistakes_between_parts_are_told_together_with_all_others(tmp_path: Path) -> None:
    text = f"{REMOTES}project: A\nsync:\n  X: {{from: 'st:', to: 'models:/'}}\n  b:\n    from: 'b2:'\n    to: 'b2:'\n"
    assert [(place, message) for place, message, _ in refusals(tmp_path, text)] == [
        ("3:10 project", "must be 1 to 40 lower-case letters, digits and dashes, no dash first"),
        ("5:3 sync.X", NAME),
        ("5:13 sync.X.from", "has no remote and no volume called st"),
        ("8:9 sync.b", "has two remotes (b2, b2): one end must be a volume or a folder"),
    ]


def test_what_is_no_mapping_is_told_once(tmp_path: Path) -> None:
    text = "version: 1\nremotes: [a]\nsync: {a: {from: 'bb:', to: 'models:/'}}\nmounts: 3\n"
    words = "must be a mapping of names to values, not"
    assert [message for _, message, _ in refusals(tmp_path, text)] == [f"{words} a list", f"{words} 3"]


def test_a_key_in_a_remote_is_refused_and_never_repeated(tmp_path: Path) -> None:
    secret = "K004" + "a1B/" * 6 + "abc"
    for field in ("secret", "bucket", "prefix", "key"):
        with pytest.raises(ProjectError) as caught:
            load(tmp_path, f"version: 1\nremotes: {{b2: {{type: b2, bucket: abc, {field}: '{secret}'}}}}\n")
        assert secret not in str(caught.value.to_dict())
