from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from comfymodal.comfyui.outputs import MAX_NAME_BYTES, FileReference, Finished, copy_file, read_history, safe_name

SUCCESS = {"status_str": "success", "completed": True, "messages": [["execution_success", {}]]}


def read(outputs: Any, status: Any = SUCCESS) -> Finished:
    return read_history({"outputs": outputs, "status": status})


def image(filename: Any, **more: Any) -> dict[str, Any]:
    return {"filename": filename, "subfolder": "", "type": "output", **more}


@pytest.mark.parametrize(
    ("outputs", "files"),
    [
        pytest.param({"images": [image("a.png")]}, [("a.png", "image")], id="images"),
        pytest.param({"images": [image("a.mp4")], "animated": [True]}, [("a.mp4", "video")], id="SaveVideo"),
        pytest.param({"images": [image("a.webp")], "animated": [True]}, [("a.webp", "image")], id="animated webp"),
        pytest.param({"gifs": [image("a.webm", format="video/webm")]}, [("a.webm", "video")], id="gifs"),
        pytest.param({"audio": [image("a.flac")]}, [("a.flac", "audio")], id="audio"),
        pytest.param({"latents": [image("a.latent")]}, [("a.latent", "latent")], id="latents"),
        pytest.param({"3d": [image("a.glb")]}, [("a.glb", "3d")], id="3d"),
        pytest.param({"result": [image("a.ply"), None, {"position": 1}]}, [("a.ply", "3d")], id="result"),
        pytest.param({"any_key": image("a.PNG")}, [("a.PNG", "image")], id="no list, capitals"),
        pytest.param({"files": [image("a.safetensors")]}, [("a.safetensors", "file")], id="a model"),
        pytest.param({"files": [image("noextension")]}, [("noextension", "file")], id="no extension"),
        pytest.param({"images": [image("a.png"), image("b.png")]}, [("a.png", "image"), ("b.png", "image")], id="two"),
        pytest.param({"images": [image("a.png")], "ui": [image("a.png")]}, [("a.png", "image")], id="listed twice"),
        pytest.param(
            {"images": [image(""), image(None), image(5), {}, "x", None, [image("a.png")]]}, [], id="no files"
        ),
        pytest.param({"images": None, "animated": [True], "n": 5}, [], id="nothing listed"),
        pytest.param(None, [], id="a node of null"),
        pytest.param([image("a.png")], [], id="a node of a list"),
    ],
)
def test_files_are_found_under_every_key(outputs: Any, files: list[tuple[str, str]]) -> None:
    assert [(file.filename, file.kind) for file in read({"9": outputs}).files] == files


def test_a_file_keeps_its_place_on_the_server() -> None:
    finished = read(
        {
            "9": {"images": [image("a.png", subfolder="b/c"), image("a.png", subfolder="d")]},
            10: {"images": [{"filename": "p.png", "subfolder": None, "type": "temp"}, {"filename": "q.png"}]},
        }
    )
    assert finished.files == (
        FileReference("9", "a.png", "b/c", "output"),
        FileReference("9", "a.png", "d", "output"),
        FileReference("10", "p.png", "", "temp"),
        FileReference("10", "q.png", "", "output"),
    )
    assert [file.is_temporary for file in finished.files] == [False, False, True, False]
    assert finished.files[0].to_query() == {"filename": "a.png", "subfolder": "b/c", "type": "output"}


@pytest.mark.parametrize(
    ("outputs", "texts"),
    [
        pytest.param({"text": ["a cat", "on a mat"]}, ["a cat", "on a mat"], id="text"),
        pytest.param({"text": "bare"}, ["bare"], id="no list"),
        pytest.param({"string": ["s"]}, ["s"], id="string"),
        pytest.param({"text": [""]}, [""], id="empty text"),
        pytest.param({"text": [5, None, ["a"]], "other": ["x"]}, [], id="no text"),
    ],
)
def test_texts_are_no_files(outputs: Any, texts: list[str]) -> None:
    finished = read({"7": outputs})
    assert [(text.node_id, text.text) for text in finished.texts] == [("7", text) for text in texts]
    assert finished.files == ()


def messages(*names: Any, status: str = "error") -> dict[str, Any]:
    return {"status_str": status, "messages": [[name, {"node_id": "3"}] for name in names]}


@pytest.mark.parametrize(
    ("status", "ending", "error"),
    [
        pytest.param(SUCCESS, "succeeded", None, id="success"),
        pytest.param(messages("execution_start", "execution_error"), "failed", {"node_id": "3"}, id="error"),
        pytest.param(messages("execution_start", "execution_interrupted"), "cancelled", None, id="interrupt"),
        pytest.param(messages("execution_start"), "failed", {}, id="error without its message"),
        pytest.param({"status_str": "error"}, "failed", {}, id="error without messages"),
        pytest.param({"status_str": "error", "messages": [["execution_error", "x"]]}, "failed", {}, id="error of text"),
        pytest.param({"messages": [None, [], ["a"], [1, 2, 3], "ab", {}]}, "succeeded", None, id="odd messages"),
        pytest.param(None, "succeeded", None, id="no status"),
        pytest.param([], "succeeded", None, id="a status of a list"),
    ],
)
def test_an_error_is_told_from_an_interrupt_by_its_message(status: Any, ending: str, error: Any) -> None:
    finished = read({"9": {"images": [image("a.png")]}}, status)
    assert (finished.ending, finished.error) == (ending, error)
    # What was finished before stays.
    assert len(finished.files) == 1


@pytest.mark.parametrize(
    ("nodes", "outputs", "is_cached"),
    [
        pytest.param(["1", "9"], ["9"], True, id="every output"),
        pytest.param([1, 9], ["9"], True, id="ids as numbers"),
        pytest.param(["1"], ["9"], False, id="another node"),
        pytest.param(["9"], ["8", "9"], False, id="one of two"),
        pytest.param(["9"], [], False, id="no outputs"),
        pytest.param([], ["9"], False, id="nothing"),
        pytest.param(None, ["9"], False, id="no list"),
    ],
)
def test_a_prompt_is_cached_when_every_output_was(nodes: Any, outputs: list[str], is_cached: bool) -> None:
    status = {"status_str": "success", "messages": [["execution_cached", {"nodes": nodes}]]}
    assert read({node: {"images": []} for node in outputs}, status).is_cached is is_cached


@pytest.mark.parametrize("entry", [{}, {"outputs": None}, {"outputs": [1]}, {"outputs": {}, "status": "x"}])
def test_an_empty_entry_is_an_empty_success(entry: dict[str, Any]) -> None:
    assert read_history(entry) == Finished("succeeded", (), (), False, None)


def test_any_entry_can_be_read() -> None:
    rng = random.Random(20261121)
    odd: list[Any] = [None, True, 0, 1.5, "", "x", "..", [], {}, ["execution_error", {}], image("a"), image("../b")]

    def value(depth: int) -> Any:
        if depth == 0 or rng.random() < 0.3:
            return rng.choice(odd)
        keys = ["outputs", "status", "messages", "images", "text", "9", "nodes", "execution_cached", "filename"]
        if rng.random() < 0.5:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        return {rng.choice(keys): value(depth - 1) for _ in range(rng.randrange(4))}

    endings = set()
    for _ in range(3000):
        finished = read_history({"outputs": value(4), "status": value(4)})
        endings.add(finished.ending)
        assert all(isinstance(file.filename, str) and safe_name(file.filename) for file in finished.files)
    assert "succeeded" in endings


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        pytest.param("img_00001_.png", "img_00001_.png", id="ordinary"),
        pytest.param("ünï cödé 猫 😀.png", "ünï cödé 猫 😀.png", id="unicode"),
        pytest.param("../../evil.png", "evil.png", id="up"),
        pytest.param("/etc/passwd", "passwd", id="absolute"),
        pytest.param("C:\\Windows\\evil.dll", "evil.dll", id="backslashes"),
        pytest.param("C:evil.png", "C_evil.png", id="drive"),
        pytest.param("a.png:stream", "a.png_stream", id="NTFS stream"),
        pytest.param("", "_", id="empty"),
        pytest.param(".", "_", id="dot"),
        pytest.param("..", "_", id="dots"),
        pytest.param("...", "_", id="three dots"),
        pytest.param("a/..", "_", id="folder and dots"),
        pytest.param("/", "_", id="root"),
        pytest.param("   ", "_", id="spaces"),
        pytest.param(".hidden", "hidden", id="hidden"),
        pytest.param("a.png. .", "a.png", id="dots at the end"),
        pytest.param("a\x00b\n\x1b[31m.png", "a_b_[31m.png", id="NUL and control characters"),
        pytest.param("a\x7f\x9b2J.png", "a_2J.png", id="control characters of the upper half"),
        pytest.param("a\u202egnp.exe", "a_gnp.exe", id="text turned around"),
        pytest.param("half\ud83d.png", "half_.png", id="half a surrogate pair"),
        pytest.param('<a>|"b"?*.png', "_a_b_.png", id="what Windows forbids"),
        pytest.param("CON", "_CON", id="device"),
        pytest.param("nul.png", "_nul.png", id="device with extension"),
        pytest.param("com1.tar.gz", "_com1.tar.gz", id="port"),
        pytest.param("LPT³", "_LPT³", id="port with a small digit"),
        pytest.param("CON .txt", "_CON .txt", id="device and a space"),
        pytest.param("console.png", "console.png", id="no device"),
    ],
)
def test_names_of_a_server_are_made_harmless(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        pytest.param("x" * 1000 + ".png", ".png", id="long"),
        pytest.param("猫" * 300 + ".png", ".png", id="long in bytes"),
        pytest.param("😀" * 300, "", id="long without extension"),
        pytest.param("a." + "y" * 1000, "", id="long extension"),
        pytest.param("a." + "猫" * 1000, "", id="long extension in bytes"),
    ],
)
def test_long_names_are_cut_and_keep_their_extension(name: str, suffix: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe.encode()) <= MAX_NAME_BYTES
    assert safe.endswith(suffix)


def test_a_safe_name_is_a_file_name_and_stays_as_it_is(tmp_path: Path) -> None:
    rng = random.Random(1)
    alphabet = 'a.. /\\:\x00\n"*?<>|~$ \ud800\u202e猫😀é-_CONnul1'
    for _ in range(3000):
        safe = safe_name("".join(rng.choice(alphabet) for _ in range(rng.randrange(12))))
        assert (tmp_path / safe).parent == tmp_path
        assert (tmp_path / safe).resolve().parent == tmp_path.resolve()
        assert safe_name(safe) == safe
        assert safe.encode()
        json.dumps(safe)


def test_a_file_in_the_servers_folder_is_copied_with_its_hash(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "output" / "sub").mkdir(parents=True)
    (tmp_path / "output" / "sub" / "a.png").write_bytes(data)
    reference = FileReference("9", "a.png", "sub", "output")
    found = copy_file(reference, tmp_path / "output", tmp_path / "kept.png")
    assert found == (len(data), hashlib.sha256(data).hexdigest())
    assert (tmp_path / "kept.png").read_bytes() == data
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("filename", "subfolder"),
    [
        pytest.param("absent.png", "", id="absent"),
        pytest.param("secret.png", "..", id="up by folder"),
        pytest.param("../secret.png", "", id="up by name"),
        pytest.param("{root}/secret.png", "", id="absolute"),
        pytest.param("link.png", "", id="through a link"),
        pytest.param("", "", id="the folder itself"),
        pytest.param("a\x00.png", "", id="NUL"),
        pytest.param("\ud800.png", "", id="half a surrogate pair"),
        pytest.param("x" * 5000, "", id="too long"),
    ],
)
def test_nothing_outside_the_servers_folder_is_copied(filename: str, subfolder: str, tmp_path: Path) -> None:
    folder = tmp_path / "output"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    reference = FileReference("9", filename.replace("{root}", str(tmp_path)), subfolder, "output")
    assert copy_file(reference, folder, tmp_path / "kept.png") is None
    assert not (tmp_path / "kept.png").exists()
