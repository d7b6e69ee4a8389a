from __future__ import annotations

from collections.abc import Iterator

import pytest

from comfymodal.errors import NotFoundError, UsageError
from comfymodal.storage.model_source import look_up, parse_source
from comfymodal.storage.web import origin_of, require_web_address
from tests.doubles.model_hub import ModelHub, model_hub

HUB = "https://huggingface.co/owner/repo"
VERSION = "https://civitai.com/api/v1/model-versions/456"
FILE = "https://civitai.com/api/download/models/456"
PLAIN = "https://example.org/loras/a%20b.safetensors?x=1"


@pytest.mark.parametrize(
    ("text", "kind", "url", "path"),
    [
        ("hf:owner/repo/vae/ae.sft", "huggingface", f"{HUB}/resolve/main/vae/ae.sft", "vae/ae.sft"),
        ("hf://owner/repo/a.sft", "huggingface", f"{HUB}/resolve/main/a.sft", "a.sft"),
        ("hf:owner/repo/a.sft@refs/pr/1", "huggingface", f"{HUB}/resolve/refs%2Fpr%2F1/a.sft", "a.sft"),
        ("hf:owner/repo/a b#ü.bin@v1", "huggingface", f"{HUB}/resolve/v1/a%20b%23%C3%BC.bin", "a b#ü.bin"),
        (f"{HUB}/blob/main/x/a.sft", "huggingface", f"{HUB}/resolve/main/x/a.sft", "x/a.sft"),
        (f"{HUB}/resolve/main/a.bin?download=true", "huggingface", f"{HUB}/resolve/main/a.bin", "a.bin"),
        ("civitai:456", "civitai", VERSION, ""),
        ("https://civitai.com/models/12/x?modelVersionId=456", "civitai", VERSION, ""),
        (FILE, "civitai", VERSION, ""),
        (f"{FILE}?type=VAE", "civitai", f"{FILE}?type=VAE", ""),
        (f"{PLAIN}#y", "url", PLAIN, "/loras/a b.safetensors"),
    ],
)
def test_sources_are_read(text: str, kind: str, url: str, path: str) -> None:
    source = parse_source(text, {})

    assert (source.kind, source.url, source.path) == (kind, url, path)


def test_a_mirror_of_the_hub_is_asked_and_gets_the_token_and_the_hub_itself_does_not() -> None:
    environ = {"HF_ENDPOINT": "https://mirror.example/", "HF_TOKEN": "t"}
    source = parse_source(f"{HUB}/resolve/main/a.safetensors", environ)
    access = source.access(environ)

    assert source.url == "https://mirror.example/owner/repo/resolve/main/a.safetensors"
    assert access is not None
    assert access.origin == "https://mirror.example"
    assert "'t'" not in repr(access)


def test_an_ordinary_server_gets_no_token() -> None:
    environ = {"HF_TOKEN": "t", "CIVITAI_TOKEN": "t"}

    assert parse_source("https://huggingface.co.evil.example/a.safetensors", environ).access(environ) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hf:owner/repo", "names no file of a repository"),
        ("hf:owner//a.bin", "names no file of a repository"),
        ("hf:owner/repo/a.bin@", "names no file of a repository"),
        ("https://huggingface.co/owner/repo", "is no file of a repository"),
        ("civitai:abc", "names no version"),
        ("civitai:", "names no version"),
        ("https://civitai.com/models/12", "names no version of a model"),
        ("ftp://example.org/a.bin", "is no address of a file"),
        ("file:///etc/passwd", "is no address of a file"),
        ("https:///a.bin", "is no address of a file"),
        ("https://example.org:port/a", "is no address of a file"),
        ("https://example.org/a\nb", "is no address of a file"),
        ("just words", "is no address of a file"),
        ("https://me:secret@example.org/a.bin", "holds a password or a token"),
        ("https://example.org/a.bin?token=s3cret", "holds a password or a token"),
    ],
)
def test_what_is_no_source_is_a_usage_error(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_source(text, {})

    assert "s3cret" not in caught.value.message
    assert caught.value.hint


def test_origins_are_compared_as_browsers_do() -> None:
    assert origin_of("https://Example.org:443/x") == origin_of("https://example.org/y?z")
    assert origin_of("http://example.org:443") != origin_of("https://example.org")
    assert require_web_address("https://example.org/ü/%20x") == "https://example.org/%C3%BC/%20x"


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with model_hub() as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("LORA", "loras"), ("Checkpoint", "checkpoints"), ("TextualInversion", "embeddings"), ("Workflows", None)],
)
def test_civitai_tells_folder_name_and_hash(hub: ModelHub, kind: str, folder: str | None) -> None:
    environ = {"CIVITAI_ENDPOINT": hub.url}
    hub.put_version(7, "anna.safetensors", b"weights", kind=kind)
    found = look_up(parse_source("civitai:7", environ), environ)

    assert (found.name, found.folder) == ("anna.safetensors", folder)
    assert found.source.url == f"{hub.url}/api/download/models/7"
    assert len(found.hashes["sha256"]) == 64


def test_a_version_with_several_files_gives_the_named_one_else_the_primary_one(hub: ModelHub) -> None:
    environ = {"CIVITAI_ENDPOINT": hub.url}
    hub.put_version(7, "big.safetensors", b"weights", kind="Checkpoint")
    first = hub.versions["7"]["files"][0]
    hub.versions["7"]["files"].insert(0, {**first, "name": "big.vae.pt", "type": "VAE", "primary": False})
    found = [look_up(parse_source(text, environ), environ) for text in ("civitai:7", "civitai:7/big.vae.pt")]

    assert [(each.name, each.folder) for each in found] == [("big.safetensors", "checkpoints"), ("big.vae.pt", "vae")]
    with pytest.raises(NotFoundError) as caught:
        look_up(parse_source("civitai:7/small.pt", environ), environ)
    assert caught.value.hint == "its files: big.vae.pt, big.safetensors"


@pytest.mark.parametrize("version", [{}, {"files": None}, {"files": [5, {"name": "x"}]}, {"files": "x"}])
def test_odd_answers_of_civitai_are_an_error(hub: ModelHub, version: dict[str, object]) -> None:
    hub.versions["7"] = {"id": 7, **version}
    environ = {"CIVITAI_ENDPOINT": hub.url}
    with pytest.raises(NotFoundError):
        look_up(parse_source("civitai:7", environ), environ)


def test_names_from_servers_have_no_folders(hub: ModelHub) -> None:
    environ = {"CIVITAI_ENDPOINT": hub.url}
    hub.put_version(7, "../../etc/passwd.safetensors", b"weights")

    assert look_up(parse_source("civitai:7", environ), environ).name == "passwd.safetensors"
