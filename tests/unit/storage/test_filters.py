from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfymodal.errors import UsageError
from comfymodal.storage.filters import Filter, compile_glob
from comfymodal.storage.names import case_clashes, conflict_name, file_folder_clashes, notice_of, refusal_of
from comfymodal.storage.values import FileState, Keys


@pytest.mark.parametrize(
    ("glob", "matched", "not_matched"),
    [
        ("*.ckpt", ["a.ckpt", "x/y/a.ckpt"], ["a.ckpt.bak", "a.safetensors", "ackpt"]),
        ("file.jpg", ["file.jpg", "x/file.jpg"], ["afile.jpg", "file.jpg/x"]),
        ("/file.jpg", ["file.jpg"], ["x/file.jpg"]),
        ("loras/**", ["loras/a", "loras/x/a", "old/loras/a"], ["loras", "myloras/a"]),
        ("/loras/**", ["loras/a", "loras/x/a"], ["old/loras/a"]),
        ("loras/", ["loras/a", "loras/x/a"], ["loras"]),
        ("loras/*", ["loras/a"], ["loras/x/a"]),
        ("l?ra", ["lora", "x/lora"], ["l/ra", "lra"]),
        ("*.{ckpt,pt}", ["a.ckpt", "a.pt"], ["a.bin", "a.ckpt,pt"]),
        ("{a,b/{c,d}}.x", ["a.x", "b/c.x", "b/d.x"], ["b.x", "c.x"]),
        ("a,b", ["a,b"], ["a", "b"]),
        ("v[0-9]", ["v1", "x/v9"], ["va", "v"]),
        ("v[!0-9]", ["va"], ["v1", "v/"]),
        ("v[^]]", ["va"], ["v]"]),
        ("v[]]", ["v]"], ["va"]),
        ("[[&~|]x", ["[x", "&x", "|x"], ["ax"]),
        (r"\*.ckpt", ["*.ckpt"], ["a.ckpt"]),
        ("a.b+c(d)$", ["a.b+c(d)$"], ["aab+c(d)$"]),
        ("ünï **", ["ünï cô/de"], ["uni code"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_globs_are_read_as_rclone_reads_them(glob: str, matched: list[str], not_matched: list[str]) -> None:
    pattern = compile_glob(glob)

    assert [path for path in matched if not pattern.fullmatch(path)] == []
    assert [path for path in not_matched if pattern.fullmatch(path)] == []


@pytest.mark.parametrize("glob", ["", "/", "{a", "a}", "[a", "[]", "a\\", "{{.*}}", "[z-a]"])
def test_a_broken_glob_is_refused_at_once(glob: str) -> None:
    with pytest.raises(UsageError, match="is no pattern"):
        Filter(exclude=(glob,))


@given(st.text("ab*?[]{}!^-,/\\.", max_size=12), st.text("ab/-]", max_size=8))
def test_any_glob_is_a_pattern_or_a_usage_error(glob: str, path: str) -> None:
    with contextlib.suppress(UsageError):
        compile_glob(glob).fullmatch(path)


def test_exclude_wins_over_include_and_no_include_means_everything() -> None:
    chosen = Filter(include=("loras/**",), exclude=("*.ckpt",))

    assert chosen.accepts("loras/a.safetensors")
    assert not chosen.accepts("loras/a.ckpt")
    assert not chosen.accepts("vae/a.safetensors")
    assert Filter().accepts("vae/a.safetensors")
    assert Filter(include=("a",)).select({"a": FileState(1), "b": FileState(1)}) == {"a": FileState(1)}


@pytest.mark.parametrize(
    "path",
    ["a.safetensors.1a2b3c4d.partial", ".comfymodal/trash/s/a", "sub/.comfymodal/bases/x", "x/.cache/huggingface/y"],
)
def test_half_written_files_and_our_own_are_never_meant(path: str) -> None:
    assert not Filter(include=("**",)).accepts(path)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../a", "'..'"),
        ("a/../../b", "'..'"),
        ("/etc/passwd", "absolute"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("", "empty"),
        ("a/./b", "'.'"),
        ("a\\b", "backslash"),
        ("..\\a", "backslash"),
        ("line\nbreak", "control character"),
        ("nul\0", "control character"),
        ("del\x7f", "control character"),
        ("half \ud800", "UTF-8"),
        ("x" * 256, "too long"),
        ("/".join(["x" * 200] * 6), "too long"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_names_no_place_may_be_given(path: str, why: str) -> None:
    assert why in (refusal_of(path) or "")


@pytest.mark.parametrize(
    "path", ["a", "-rf", "ünï côde/模型.bin", " leading", "a b", "..a", "a..", ".hidden", "x" * 255, "C:x", "{[*]}"]
)
def test_odd_names_that_are_fine(path: str) -> None:
    assert refusal_of(path) is None


def test_a_trailing_dot_or_space_is_only_worth_a_notice() -> None:
    assert "Windows" in (notice_of("folder./a") or "")
    assert "Windows" in (notice_of("a ") or "")
    assert notice_of("a.b c") is None


def test_clashes_name_the_other_file() -> None:
    assert case_clashes(["loras/A", "loras/a", "b"]) == {"loras/A": "loras/a", "loras/a": "loras/A"}
    # Two ways to write an umlaut.
    assert set(case_clashes(["\u00fc", "u\u0308"])) == {"\u00fc", "u\u0308"}
    assert case_clashes(["A/x", "a/y"]) == {}
    assert file_folder_clashes(["a", "a/b", "c/d"]) == {"a/b": "a", "a": "a/b"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.safetensors", "a/b.conflict-my-host-1.safetensors"),
        ("noext", "noext.conflict-my-host-1"),
        (".hidden", ".hidden.conflict-my-host-1"),
    ],
)
def test_a_conflict_copy_keeps_folder_and_extension(path: str, expected: str) -> None:
    assert conflict_name(path, "conflict-my/host-1") == expected


def test_a_conflict_copy_has_a_name_of_its_own_that_fits() -> None:
    assert conflict_name("a.b", "x", {"a.x.b"}) == "a.x-2.b"
    found = conflict_name("ü" * 125 + ".bin", "conflict-host")
    assert refusal_of(found) is None
    assert found.endswith(".conflict-host.bin")


def test_keys_are_never_shown() -> None:
    keys = Keys("public-id", "very-secret")

    for shown in (repr(keys), str(keys), f"{keys}", repr([keys])):
        assert "very-secret" not in shown
        assert "public-id" not in shown
