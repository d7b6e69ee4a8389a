"""Where a model comes from: what the operator wrote, and what Hugging Face, Civitai or a web server say about it.

Whether a token opens a file is asked here as well, so that a missing licence is known before anything is started.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from comfymodal.errors import NotFoundError, ServiceError, UsageError
from comfymodal.storage.web import Access, get_json, open_url, origin_of, require_web_address

Kind = Literal["huggingface", "civitai", "url"]

HUGGING_FACE = "https://huggingface.co"
CIVITAI = "https://civitai.com"

FORMS = "https://..., hf:owner/repo/file[@revision], civitai:VERSION_ID or REMOTE:path"

ASK_S = 15.0
"""How long a question may take that only saves the operator a late failure."""

_CIVITAI_FOLDERS = {
    "checkpoint": "checkpoints",
    "lora": "loras",
    "locon": "loras",
    "dora": "loras",
    "textualinversion": "embeddings",
    "hypernetwork": "hypernetworks",
    "controlnet": "controlnet",
    "upscaler": "upscale_models",
    "vae": "vae",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A file somewhere on the web. `path` is what its folder and name can be taken from."""

    kind: Kind
    label: str
    url: str
    path: str
    licence_page: str | None = None
    wanted: str | None = None
    """Of a Civitai version with several files: the name of the one that is meant."""

    def access(self, environ: Mapping[str, str]) -> Access | None:
        """The token for this source, and where it may be shown; None for an ordinary web server."""
        page = self.licence_page or self.url
        if self.kind == "huggingface":
            token = environ.get("HF_TOKEN") or None
            pages = (f"{HUGGING_FACE}/settings/tokens", page)
            return Access(origin_of(self.url), "HF_TOKEN", "hf-credentials", *pages, token=token)
        if self.kind == "civitai":
            token = environ.get("CIVITAI_TOKEN") or None
            pages = (f"{CIVITAI}/user/account", page)
            return Access(origin_of(self.url), "CIVITAI_TOKEN", "civitai-credentials", *pages, token=token)
        return None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Found:
    """What its host says of a source. `folder` is ComfyUI's, where the host knows what kind of model it is."""

    source: Source
    name: str | None
    folder: str | None = None
    size_bytes: int | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)


def parse_source(text: str, environ: Mapping[str, str]) -> Source:
    """Read what the operator wrote; asks nobody. `HF_ENDPOINT` and `CIVITAI_ENDPOINT` name other hosts.

    Raises `UsageError`.
    """
    hub = (environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
    civitai = (environ.get("CIVITAI_ENDPOINT") or CIVITAI).rstrip("/")
    if text.startswith("hf:"):
        return _on_hub(text[3:].removeprefix("//"), hub)
    if text.startswith("civitai:"):
        return _on_civitai(text[8:], civitai)
    url = require_web_address(text)
    if origin_of(url) in (origin_of(hub), HUGGING_FACE):
        return _hub_address(url, hub)
    if origin_of(url) in (origin_of(civitai), CIVITAI):
        return _civitai_address(url, civitai)
    return Source("url", url.partition("?")[0], url, unquote(urlsplit(url).path))


def look_up(source: Source, environ: Mapping[str, str]) -> Found:
    """Ask its host. Raises `TryAgainError`, `NotFoundError`, `NotReadyError`, `ServiceError`, `UsageError`."""
    if source.kind == "civitai" and "/api/v1/" in source.url:
        return _ask_civitai(source, environ)
    # One byte of it: some hosts refuse HEAD, or forget the token's owner in it.
    with open_url(source.url, access=source.access(environ), headers={"Range": "bytes=0-0"}) as answer:
        if answer.is_page:
            raise a_page(source.label)
        facts = answer.facts()
    named = source.path.rstrip("/").rpartition("/")[2]
    # An address says less of a name than the server does; in a repository it is the name.
    name = named if source.kind == "huggingface" else facts.filename or named
    hashes = {"sha256": facts.sha256} if facts.sha256 else {}
    return Found(source, name or None, None, facts.size_bytes, hashes)


def require_repository(repository: str, environ: Mapping[str, str], *, timeout_s: float = ASK_S) -> None:
    """Ask Hugging Face whether `owner/name` opens to the token in `HF_TOKEN`; nothing of it is read.

    Raises `NotReadyError` (with `status` 401: no token of this hub; 403: its account did not accept the licence),
    `NotFoundError` where there is none that this account may see, `TryAgainError`, `ServiceError`.
    """
    hub = (environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
    # What its own library asks (`HfApi.auth_check`); some files of a gated repository open to everybody.
    url = require_web_address(f"{hub}/api/models/{quote(repository)}/auth-check")
    source = Source("huggingface", f"hf:{repository}", url, repository, f"{hub}/{repository}")
    with open_url(url, access=source.access(environ), timeout_s=timeout_s):
        return


def a_page(label: str) -> ServiceError:
    """The error for an address that answers with a web page."""
    return ServiceError(
        f"{label} answers with a web page, not with a model",
        hint="give the address of the file itself; forms: " + FORMS,
    )


def _on_hub(rest: str, hub: str) -> Source:
    path, at, revision = rest.rpartition("@")
    path, revision = (path, revision) if at else (rest, "main")
    parts = path.strip("/").split("/")
    if len(parts) < 3 or not all(parts) or not revision:
        raise UsageError(f"hf:{rest} names no file of a repository", hint="hf:owner/repo/folder/file.safetensors@main")
    repository, file = "/".join(parts[:2]), "/".join(parts[2:])
    url = require_web_address(f"{hub}/{quote(repository)}/resolve/{quote(revision, safe='')}/{quote(file)}")
    label = f"hf:{repository}/{file}" + (f"@{revision}" if revision != "main" else "")
    return Source("huggingface", label, url, file, f"{hub}/{repository}")


def _hub_address(url: str, hub: str) -> Source:
    path = urlsplit(url).path
    if found := re.fullmatch(r"/([^/]+/[^/]+)/(?:resolve|blob|raw)/([^/]+)/(.+)", path):
        return _on_hub(f"{unquote(found[1])}/{unquote(found[3])}@{unquote(found[2])}", hub)
    if not re.search(r"/resolve/", path):
        raise UsageError(f"{url} is no file of a repository", hint="hf:owner/repo/folder/file.safetensors")
    return Source("huggingface", url.partition("?")[0], url, unquote(path.partition("/resolve/")[2].partition("/")[2]))


def _on_civitai(rest: str, civitai: str) -> Source:
    number, _, name = rest.partition("/")
    if not number.isascii() or not number.isdigit():
        raise UsageError(
            f"civitai:{rest} names no version",
            hint="the number behind modelVersionId= in the page's address: civitai:456",
        )
    page = f"{civitai}/model-versions/{number}"
    return Source("civitai", f"civitai:{rest}", f"{civitai}/api/v1/model-versions/{number}", "", page, name or None)


def _civitai_address(url: str, civitai: str) -> Source:
    parts = urlsplit(url)
    version = parse_qs(parts.query).get("modelVersionId")
    if parts.path.startswith("/models/") and version:
        return _on_civitai(version[0], civitai)
    if (found := re.fullmatch(r"/api/download/models/(\d+)", parts.path)) and not parts.query:
        return _on_civitai(found[1], civitai)
    if found:
        return Source("civitai", url.partition("?")[0], url, "", f"{civitai}/model-versions/{found[1]}")
    raise UsageError(
        f"{url} names no version of a model",
        hint="choose a version on the page: its address ends in ?modelVersionId=456",
    )


def _ask_civitai(source: Source, environ: Mapping[str, str]) -> Found:
    version = get_json(source.url, access=source.access(environ))
    files = [each for each in _list(version, "files") if isinstance(each, dict) and each.get("downloadUrl")]
    if not files:
        raise NotFoundError(f"{source.label} has no file to download", hint="is the number that of a version?")
    names = [str(each.get("name")) for each in files]
    if source.wanted is not None and source.wanted not in names:
        raise NotFoundError(
            f"{source.label}: there is no such file", hint=f"its files: {', '.join(names)}", files=names
        )
    chosen = next(
        (each for each in files if each.get("name") == source.wanted),
        next((each for each in files if each.get("primary") is True), files[0]),
    )
    model = version.get("model")
    kind = str(chosen.get("type") if chosen.get("type") == "VAE" else (model or {}).get("type"))
    hashes = chosen.get("hashes")
    sha256 = str((hashes or {}).get("SHA256") or "").lower()
    url = require_web_address(str(chosen["downloadUrl"]))
    if (configured := origin_of(source.url)) != CIVITAI and origin_of(url) == CIVITAI:
        url = configured + url.removeprefix(CIVITAI)
    return Found(
        replace(source, url=url, path=str(chosen.get("name"))),
        re.split(r"[/\\]", str(chosen.get("name")))[-1] or None,
        _CIVITAI_FOLDERS.get(kind.lower()),
        # Kilobytes with two digits behind the point: too coarse to be held against a file.
        None,
        {"sha256": sha256} if re.fullmatch(r"[0-9a-f]{64}", sha256) else {},
    )


def _list(value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []
