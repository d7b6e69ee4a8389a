from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from comfymodal.errors import ProjectError
from comfymodal.project.load import LoadedProject, load_project


def write(folder: Path, text: str | bytes, name: str = "comfymodal.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(
    folder: Path, text: str | bytes, *, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> LoadedProject:
    return load_project(write(folder, text), environ=environ or {}, flags=flags or {}, cwd=folder)


def refusal(
    folder: Path, text: str | bytes, *, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> ProjectError:
    with pytest.raises(ProjectError) as caught:
        load(folder, text, environ=environ, flags=flags)
    return caught.value


V = "version: 1\n"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (V + "comfyui:\n  idle_stopp: 1m\n", "3:3: comfyui.idle_stopp: unknown key", "did you mean `idle_stop`"),
        (V + "output_dir: x\n", "2:1: output_dir: unknown key", "`output_dir` belongs under `render`"),
        (V + "render: {target: x}\n", "2:10: render.target: unknown key", "`target` belongs at the top of the file"),
        (V + "idle_stopp: 3\n", "2:1: idle_stopp: unknown key", "did you mean `comfyui.idle_stop`"),
        (V + "render: {zz: 3}\n", "2:10: render.zz: unknown key", "keys here: output_dir, naming"),
        (V + "<<: {a: b}\n", "2:1: <<: unknown key", "keys here: version, project, target, modal, volumes, remotes, "
         "sync, mounts, comfyui, render, training, costs, notify"),
        (V + "project: Bad\n", "2:10: project: must be 1 to 40 lower-case letters, digits and dashes, no dash "
         "first", None),
        (V + "project: 010\n", "2:10: project: must be text, not 10", "put quotes around it"),
        (V + "target: cloud\n", "2:9: target: must be 'local' or 'modal', not \"cloud\"", None),
        (V + "volumes:\n  models: {name: -x}\n", "3:18: volumes.models.name: must be 1 to 64 letters, digits, dots, "
         "dashes and underscores", None),
        (V + "comfyui:\n", "2:9: comfyui: has no keys", "write its keys below it, indented, or remove the line"),
        (V + "comfyui: 5\n", "2:10: comfyui: must be a mapping of keys, not 5", None),
        (V + "comfyui:\n  args: --cpu\n", '3:9: comfyui.args: must be a list, not "--cpu"', None),
        (V + "comfyui:\n  args:\n  - --port\n  - 8190\n", "5:5: comfyui.args[1]: must be text, not 8190",
         "put quotes around it"),
        (V + "comfyui: {discover: yes}\n", '2:21: comfyui.discover: must be true or false, not "yes"',
         "yes, no, on and off are plain text here"),
        (V + "comfyui: {idle_stop: 1 hour}\n", "2:22: comfyui.idle_stop: must be a duration: 90s, 15m, 2h, 1d, 1h30m "
         "or a number of seconds", None),
        (V + "comfyui: {boot_timeout: never}\n", "2:25: comfyui.boot_timeout: must be a duration: 90s, 15m, 2h, 1d, "
         "1h30m or a number of seconds", None),
        (V + "modal: {region: US West}\n", "2:17: modal.region: must be a region of Modal's in small letters, for "
         "example eu or us-west", None),
        (V + "comfyui: {version: 0.4}\n", "2:20: comfyui.version: must be text, not 0.4", "put quotes around it"),
        (V + "comfyui: {version: latest}\n", "2:20: comfyui.version: must be a version of ComfyUI, for example 0.3.75",
         None),
        (V + "comfyui: {url: localhost:8188}\n", "2:16: comfyui.url: must be an http:// or https:// address with a "
         "host, for example http://127.0.0.1:8188", None),
        (V + "comfyui: {url: 'http://me:pw@h'}\n", "2:16: comfyui.url: must not contain a user name or password: "
         "secrets are names, never values", None),
        (V + "comfyui: {url: 'http://h/?a=1'}\n", "2:16: comfyui.url: must be the base address without ? or #, for "
         "example http://127.0.0.1:8188", None),
        (V + "render:\n  naming: '{foo}'\n", "3:11: render.naming: has no field {foo}; fields: run_id, prompt, "
         "node_id, title, class_type, index, stem, ext, seed, workflow", None),
        (V + "render: {output_dir: ~}\n", "2:22: render.output_dir: must be a path; put quotes around it", None),
        (V + "render: {output_dir: ''}\n", "2:22: render.output_dir: must be a path", None),
        (V + "project: a\nproject: b\n", "3:1: project: duplicate key, first at line 2, column 1",
         "keep one of the two"),
        (V + "\tproject: a\n", "2:1: not valid YAML: found character '\\t' that cannot start any token",
         "indent with spaces; YAML refuses tabs"),
        (V + "sync: {a: {include: [*.ckpt]}}\n", "2:23: not valid YAML: expected alphabetic or numeric character, but "
         "found '.'", "put quotes around text that starts with `*`"),
        (V + "sync: {a: {include: [*ckpt]}}\n", "2:22: sync.a.include[0]: no anchor &ckpt before this alias",
         "put quotes around text that starts with `*`"),
        (V + "---\nversion: 1\n", "2:1: a second document starts here",
         "a project file is one YAML document; remove `---`"),
        ("project: x\n", "1:1: version: is missing", "start the file with `version: 1`"),
        ("version: 2\nnew: 1\n", "1:10: version: 2 is made for a newer comfymodal; this one reads version 1",
         "update comfymodal"),
        ("version: 0\n", "1:10: version: must be 1, not 0", None),
        ("version: '1'\n", "1:10: version: must be the number 1, without quotes", None),
        ("version: true\n", "1:10: version: must be the number 1, without quotes", None),
        ("version: 1.0\n", "1:10: version: must be the number 1, without quotes", None),
        ("- a\n", "1:1: must be a mapping of keys", "start with `version: 1`"),
        (b"version: 1\nproject: \xff\n", "2:10: not UTF-8 text", "save the file as UTF-8"),
        ("version: 1\n".encode("utf-16"), "1:1: not UTF-8 text", "save the file as UTF-8"),
        (V + 'project: "\\ud800"\n', "2:10: project: is not UTF-8 text", None),
    ],
    ids=lambda value: value[-40:].encode("unicode_escape").decode() if isinstance(value, str) else None,
)  # fmt: skip
def test_a_mistake_has_its_place_and_a_hint(tmp_path: Path, text: str | bytes, message: str, hint: str | None) -> None:
    error = refusal(tmp_path, text)
    assert (error.message, error.hint) == (f"comfymodal.yaml:{message}", hint)
    (problem,) = error.details["problems"]
    assert f"{problem['file']}:{problem['line']}:{problem['column']}:" in error.message
    assert problem["hint"] == hint


@pytest.mark.parametrize("text", ["", "\n# a comment\n", "---\n"])
def test_an_empty_file_says_how_to_start(tmp_path: Path, text: str) -> None:
    error = refusal(tmp_path, text)
    assert (error.message, error.hint) == ("comfymodal.yaml: the file is empty", "start with `version: 1`")


def test_every_mistake_is_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "version: 1\nrender: {x: 1}\nproject: A\ncomfyui:\n  args: 5\n  url: ftp://h\n"
    error = refusal(tmp_path, text)
    assert error.message == "comfymodal.yaml:2:10: render.x: unknown key (and 3 more)"
    assert [(one["line"], one["key"]) for one in error.details["problems"]] == [
        *((2, "render.x"), (3, "project"), (5, "comfyui.args"), (6, "comfyui.url"))
    ]
    assert [one["place"] for one in error.details["problems"]] == [
        f"comfymodal.yaml:{place}" for place in ("2:10", "3:10", "5:9", "6:8")
    ]
    assert set(error.details["problems"][0]) == {
        "place",
        "file",
        "line",
        "column",
        "variable",
        "is_flag",
        "key",
        "message",
        "hint",
    }


# Put together here, so that no scanner takes this file for a leak.
SECRETS = ["ak-" + "a1B2" * 6, "as-" + "a1B2" * 6, "hf_" + "aBcD" * 8, "AKIA" + "ABCD" * 4, "K004" + "a1B/" * 6 + "abc"]
SECRETS += [
    "xoxb-" + "12345678-aBcD",
    "xapp-1-" + "A0B1C2D3E4",
    "https://hooks.slack.com/services/T00/B00/" + "aBcD" * 6,
]


_KINDS = ["modal id", "modal secret", "hugging face", "aws", "b2", "slack bot", "slack app", "slack webhook"]


@pytest.mark.parametrize("secret", SECRETS, ids=_KINDS)
@pytest.mark.parametrize(
    "template",
    ["project: {}\n", "comfyui: {{args: [--token, {}]}}\n", "comfyui: {{url: 'http://h/{}'}}\n", "{}: 1\n", "k: {}\n"],
)
def test_secrets_are_refused_and_never_repeated(tmp_path: Path, secret: str, template: str) -> None:
    error = refusal(tmp_path, V + template.format(secret))
    assert secret not in str(error.to_dict())
    if not template.startswith("{}"):
        assert "secrets are names, never values" in str(error.to_dict())


def test_a_secret_in_an_env_var_is_refused_too(tmp_path: Path) -> None:
    error = refusal(tmp_path, V, environ={"COMFYMODAL_COMFYUI_ARGS": f"--token {SECRETS[2]}"})
    assert error.message.startswith("COMFYMODAL_COMFYUI_ARGS: comfyui.args[1]: looks like a token or key")


A_COMMIT = "0123456789abcdef0123456789abcdef01234567"
WAS = "its versions are at https://registry.comfy.org/nodes/was"
HEAD = "`git ls-remote https://h/a HEAD` prints the newest commit"
IN_A_SECRET = "put it in a Modal secret and name that under comfyui.secrets"
PACKAGES = "write name==version, name @ https://..., name @ git+https://...@COMMIT or the address of a .whl file"


def modal_case(place: str, key: str, value: str, words: str, hint: str | None = None) -> Any:
    return pytest.param(f"{key}: {value}", f"{place}: {words}", hint, id=f"{key} {value}"[:50])


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        modal_case("gpu", "gpu", "L40", "L40 is not a GPU of Modal; did you mean L40S?"),
        modal_case("gpu[1]", "gpu", "[L40S, L40]", "L40 is not a GPU of Modal; did you mean L40S?"),
        modal_case("gpu", "gpu", "[]", "must be a GPU's name, or a list of names in the order they are tried"),
        modal_case("gpu", "gpu", "4", "must be a GPU's name, or a list of names in the order they are tried"),
        modal_case("gpu[0]", "gpu", "[4]", "must be text, not 4", "put quotes around it"),
        modal_case("custom_nodes", "custom_nodes", "was@1", 'must be a list, not "was@1"'),
        modal_case("custom_nodes[0]", "custom_nodes", "[was]", "must be pinned: write was@VERSION", WAS),
        modal_case("custom_nodes[0]", "custom_nodes", "[was@]", "must be pinned: write was@VERSION", WAS),
        modal_case("custom_nodes[0]", "custom_nodes", "[was@latest]",
                   "must be pinned to a version such as was@1.0.2, not to latest", WAS),
        modal_case("custom_nodes[0]", "custom_nodes", "[was@v1]",
                   "must be pinned to a version such as was@1.0.2, not to v1", WAS),
        modal_case("custom_nodes[0]", "custom_nodes", "[WAS@1.0]", "has an upper-case letter in WAS",
                   "ids of the Comfy registry are lower-case: was"),
        modal_case("custom_nodes[0]", "custom_nodes", "[a/b@1.0]",
                   "must be id@version of the Comfy registry, or https://host/path@COMMIT"),
        modal_case("custom_nodes[0]", "custom_nodes", "['https://h/a']",
                   "must be pinned: write https://h/a@COMMIT, the commit's 40 hex digits", HEAD),
        modal_case("custom_nodes[0]", "custom_nodes", "['https://h/a@main']",
                   "must end in the whole commit (40 hex digits), not @main: branches and tags move", HEAD),
        modal_case("custom_nodes[0]", "custom_nodes", "['https://h/a@0123456']",
                   "must end in the whole commit (40 hex digits), not @0123456: branches and tags move", HEAD),
        modal_case("custom_nodes[0]", "custom_nodes", f"['http://h/a@{A_COMMIT}']",
                   "must be an https:// address with a host and a path, without spaces, ? and #"),
        modal_case("custom_nodes[0]", "custom_nodes", f"['git@h:a.git@{A_COMMIT}']",
                   "must be an https:// address with a host and a path, without spaces, ? and #"),
        modal_case("custom_nodes[0]", "custom_nodes", f"['https://me:pw@h/a@{A_COMMIT}']",
                   "must not contain a user name or password: secrets are names, never values"),
        modal_case("custom_nodes", "custom_nodes", "[was@1, b@1, was@2]", "has was twice", "keep one of the two"),
        modal_case("python_packages[0]", "python_packages", "[torch]", "must be pinned: write torch==VERSION",
                   "`pip index versions torch` lists them"),
        modal_case("python_packages[0]", "python_packages", "['a[b]>=1,<2']", "must be pinned: write a[b]==VERSION",
                   "`pip index versions a` lists them"),
        modal_case("python_packages[0]", "python_packages", "[a==1.*]", "must be pinned: write a==VERSION",
                   "`pip index versions a` lists them"),
        modal_case("python_packages[0]", "python_packages", "[--pre]",
                   "must be a package; pip's own options are not taken", PACKAGES),
        modal_case("python_packages[0]", "python_packages", "['https://h/a.tar.gz']", "must be a pinned package",
                   PACKAGES),
        modal_case("python_packages[0]", "python_packages", "['a @ git+https://h/a@main']",
                   "must be pinned: end the git address in @ and the whole commit (40 hex digits)"),
        modal_case("python_packages[0]", "python_packages", "['a @ https://me:pw@h/a.whl']",
                   "must not contain a user name or password: secrets are names, never values"),
        modal_case("python_packages", "python_packages", "[A_b==1, 'a-b==2']", "has a-b twice", "keep one of the two"),
        modal_case("env", "env", "[A]", "must be a mapping of names to values, not a list"),
        modal_case("env.1A", "env", "{1A: x}", "must be a name of letters, digits and underscores, no digit first"),
        modal_case("env.A", "env", "{A: }", "must be text, a number, true or false", 'write "" for an empty value'),
        modal_case("env.A", "env", "{A: [1]}", "must be text, a number, true or false", 'write "" for an empty value'),
        modal_case("env.A", "env", '{A: "a\\nb"}', "must be one line without control characters"),
        *(
            modal_case(f"env.{name}", "env", f"{{{name}: x}}",
                       "looks like a secret; secrets are names, never values", IN_A_SECRET)
            for name in ("HF_TOKEN", "hf_token", "TOKEN", "MY_SECRET", "SECRET_KEY", "DB_PASSWORD", "OPENAI_API_KEY",
                         "AWS_ACCESS_KEY_ID")
        ),
        *(
            modal_case(f"env.{name}", "env", f"{{{name}: x}}", "is set by comfymodal or Modal in every container",
                       "remove it, or choose another name")
            for name in ("COMFYMODAL_X", "MODAL_IS_REMOTE", "COMFYUI_PATH")
        ),
        modal_case("secrets[0]", "secrets", "[HF_TOKEN=x]",
                   "must be 1 to 64 letters, digits, dots, dashes and underscores"),
        modal_case("timeout", "timeout", "59s",
                   "must be at least 60s and at most 24h: Modal ends every call after 24h"),
        modal_case("timeout", "timeout", "25h",
                   "must be at least 60s and at most 24h: Modal ends every call after 24h"),
        modal_case("timeout", "timeout", "never",
                   "must be a duration: 90s, 15m, 2h, 1d, 1h30m or a number of seconds"),
        modal_case("scaledown_window", "scaledown_window", "1s",
                   "must be at least 2s and at most 1h: Modal takes nothing else"),
        modal_case("scaledown_window", "scaledown_window", "61m",
                   "must be at least 2s and at most 1h: Modal takes nothing else"),
        modal_case("min_containers", "min_containers", "-1", "must be 0 to 100, not -1"),
        modal_case("max_containers", "max_containers", "0", "must be 1 to 100, not 0"),
        modal_case("max_containers", "max_containers", "101", "must be 1 to 100, not 101"),
        modal_case("max_containers", "max_containers", "many", 'must be a whole number, not "many"'),
        modal_case("max_containers", "max_containers", "true", "must be a whole number, not true"),
        modal_case("max_containers", "max_containers", "1.5", "must be a whole number, not 1.5"),
        modal_case("snapshot", "snapshot", "false", "must be 'off', 'cpu' or 'gpu', not false"),
        modal_case("stall_timeout", "stall_timeout", "off",
                   "must be a duration: 90s, 15m, 2h, 1d, 1h30m or a number of seconds"),
    ],
)  # fmt: skip
def test_a_mistake_in_what_modal_gets_has_its_place_and_a_hint(
    tmp_path: Path, text: str, message: str, hint: str | None
) -> None:
    error = refusal(tmp_path, f"{V}comfyui:\n  {text}\n")
    shown = error.message.removeprefix("comfymodal.yaml:3:").partition(": ")
    assert (shown[2], error.hint) == (f"comfyui.{message}", hint)
    # The value's own place, or the name's when the name is wrong.
    assert int(shown[0]) >= 3 + (0 if text.startswith("env: {") else len(text.partition(":")[0]))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("modal: {environment: a b}", "2:22: modal.environment: must be 1 to 64 letters, digits, dots, dashes and "
         "underscores", None),
        ("modal: {workspce: x}", "2:9: modal.workspce: unknown key", "did you mean `workspace`"),
        (
            "gpu: L40S",
            "2:1: gpu: unknown key",
            "`gpu` belongs under `comfyui` or `training` or `costs.rentals.NAME`",
        ),
        ("training: {gpu: L4O}", "2:17: training.gpu: L4O is not a GPU of Modal; did you mean L4?", None),
        ("training: {retries: 11}", "2:21: training.retries: must be 0 to 10, not 11", None),
        ("training: {timeout: 20d}", "2:21: training.timeout: must be at least 60s and at most 14 days (336h)", None),
        ("training: {toolkit_commit: main}", "2:28: training.toolkit_commit: must be a commit of 40 hex digits",
         None),
        ("volumes: {models: {version: 3}}", "2:29: volumes.models.version: must be the number 1 or 2", None),
        ("volumes: {models: {version: true}}", "2:29: volumes.models.version: must be the number 1 or 2", None),
        ("costs: {per_run: 1}", "2:9: costs.per_run: unknown key", "did you mean `per_run_usd`"),
        *(
            (f"costs: {{per_run_usd: {value}}}", "2:22: costs.per_run_usd: must be US dollars above 0 with at most 9 "
             "decimals, for example 2.50", "write the number alone, or null for no limit")
            for value in ("0", "-1", "$2.50", "'2,50'", "2.50 USD", "''", "true", "[1]", ".nan", ".inf", "1e99",
                          "1e-10", "1_000", "0.0000000001")
        ),
        ("comfyui: {min_containers: 2, buffer_containers: 2}", "2:27: comfyui.min_containers: max_containers (3) must "
         "be at least min_containers + buffer_containers (4)", None),
        ("comfyui: {buffer_containers: 2, max_containers: 1}", "2:49: comfyui.max_containers: max_containers (1) must "
         "be at least min_containers + buffer_containers (2)", None),
    ],
)  # fmt: skip
def test_a_mistake_in_the_other_sections_too(tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    error = refusal(tmp_path, f"{V}{text}\n")
    assert (error.message, error.hint) == (f"comfymodal.yaml:{message}", hint)


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "HF_HOME", "_X", "KEY", "TOKENIZER", "MODALITY"]
)
def test_names_that_only_resemble_secrets_are_fine(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, f"{V}comfyui: {{env: {{{name}: x}}}}\n").settings.comfyui.env == {name: "x"}


def test_a_password_in_an_address_is_never_repeated(tmp_path: Path) -> None:
    for key in ("custom_nodes", "python_packages"):
        for address in ("https://me:hunter2@h/a", "http://hunter2@h/a", f"https://hunter2@h/a@{A_COMMIT}"):
            text = f"{V}comfyui: {{{key}: ['{address}', 'a @ {address}', 'git+{address}']}}\n"
            assert "hunter2" not in str(refusal(tmp_path, text).to_dict())


def test_an_env_var_called_like_pydantics_own_mark_is_refused_as_a_name(tmp_path: Path) -> None:
    error = refusal(tmp_path, V + "comfyui: {env: {'[key]': {'[key]': 1}, B C: 1}}\n")
    assert "[key]" in error.message
    assert [problem["key"] for problem in error.details["problems"]][-1] == "comfyui.env.B C"
