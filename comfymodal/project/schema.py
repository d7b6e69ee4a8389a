"""What a project file may say: the models, their defaults, and the words of its JSON Schema. Reads no files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from comfymodal.project.durations import LONGEST_S, PATTERN, SHORTEST_S, format_duration, parse_duration
from comfymodal.project.naming import check_naming

VERSION = 1
"""The only version of the file format this release reads."""

LeafKind = Literal["text", "path", "list", "scalar"]
"""How the text of an env var becomes a value: as it is, as a path, as a list of words, or as a YAML scalar."""


def _matching(pattern: str, words: str) -> tuple[AfterValidator, WithJsonSchema]:
    # pydantic's own pattern error shows the regular expression; operators get words.
    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(f"must be {words}")
        return value

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


def _check_url(value: str) -> str:
    example = "for example http://127.0.0.1:8188"
    try:
        parts = urlsplit(value)
        # Reading the port is what checks it.
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed or re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError(f"must be an http:// or https:// address with a host, {example}")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password: secrets are names, never values")
    if "?" in value or "#" in value:
        raise ValueError(f"must be the base address without ? or #, {example}")
    return value.rstrip("/")


def expand_path(text: str, *, base: Path | None) -> str:
    """Expand `~` and put a relative path under `base`. Raises ValueError for text that cannot be a path.

    Symlinks and `..` are kept: the `python` of a virtual environment is a symlink whose target is another Python.
    """
    if not text.strip() or "\0" in text:
        raise ValueError("must be a path")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise ValueError(f"nobody called {Path(text).parts[0][1:]} has a home folder here")
    return os.path.join(base, expanded) if base else expanded


def _parse_path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, (str, Path)):
        # `~` alone is YAML for null.
        raise ValueError("must be a path; put quotes around it")
    return Path(expand_path(str(value), base=(info.context or {}).get("base")))


def _refuse_lookalikes(value: object) -> object:
    # Python takes True and 1.0 for 1.
    if type(value) is not int:
        raise ValueError("must be the number 1, without quotes")
    return value


def _parse_idle(value: object) -> float | None:
    return None if value == "never" else parse_duration(value)


def _show_idle(value: float | None) -> str:
    return "never" if value is None else format_duration(value)


_DURATION_FORMS: list[dict[str, Any]] = [
    {"type": "string", "pattern": f"^{PATTERN}$", "examples": ["90s", "15m", "1h30m"]},
    {"type": "number", "minimum": SHORTEST_S, "maximum": LONGEST_S},
]

Duration = Annotated[
    float,
    PlainValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"anyOf": _DURATION_FORMS}),
]
"""Seconds; written as `15m` and shown that way again."""

DurationOrNever = Annotated[
    float | None,
    PlainValidator(_parse_idle),
    PlainSerializer(_show_idle, when_used="json"),
    WithJsonSchema({"anyOf": [*_DURATION_FORMS, {"const": "never"}]}),
]
"""Seconds, or None for `never`."""

LocalPath = Annotated[Path, PlainValidator(_parse_path), WithJsonSchema({"type": "string", "minLength": 1})]
"""Absolute once validated with a `base` in the validation context."""

ProjectName = Annotated[
    str, *_matching("[a-z0-9][a-z0-9-]{0,39}", "1 to 40 lower-case letters, digits and dashes, no dash first")
]
VolumeName = Annotated[
    str, *_matching("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 letters, digits, dots, dashes and underscores")
]
Url = Annotated[
    str, AfterValidator(_check_url), WithJsonSchema({"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^ ?#@]+$"})
]
Naming = Annotated[str, AfterValidator(check_naming)]


EngineVersion = Annotated[str, *_matching(r"[0-9]+(\.[0-9A-Za-z+-]+)+", "a version of ComfyUI, for example 0.3.75")]


class Config(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        # Only Project is ever validated; building a validator for every part costs start-up time for nothing.
        defer_build=True,
    )


class Volume(Config):
    path: LocalPath | None = None
    """Folder on this machine that stands for the volume; without it, a folder under the user's state folder."""


class ModelsVolume(Volume):
    name: VolumeName = "comfy-models"
    """Name of the volume that holds models in ComfyUI's folders (checkpoints, loras, vae ...)."""


class InputsVolume(Volume):
    name: VolumeName = "comfy-inputs"
    """Name of the volume that holds the files workflows read."""


class OutputsVolume(Volume):
    name: VolumeName = "comfy-outputs"
    """Name of the volume that holds one folder per run."""


class Volumes(Config):
    models: ModelsVolume = Field(default_factory=ModelsVolume)
    """Where models are kept."""
    inputs: InputsVolume = Field(default_factory=InputsVolume)
    """Where input files are kept."""
    outputs: OutputsVolume = Field(default_factory=OutputsVolume)
    """Where runs and their output files are kept."""


class ComfyUI(Config):
    url: Url | None = None
    """Address of a running ComfyUI server to use."""
    path: LocalPath | None = None
    """ComfyUI installation to start when no server is running."""
    python: LocalPath | None = None
    """Python that starts the installation, usually the one of its virtual environment."""
    version: EngineVersion | None = None
    """Installed engine to use (`comfymodal engine status`); without it 0.3.75 when it is there, else the newest."""
    args: tuple[str, ...] = ()
    """Extra arguments for ComfyUI when it is started here, for example `--lowvram`."""
    discover: bool = True
    """Whether to look for a running server on 127.0.0.1:8188."""
    idle_stop: DurationOrNever = Field(default=900.0, json_schema_extra={"default": "15m"})
    """How long a started ComfyUI may be idle before it is stopped, or `never`."""
    boot_timeout: Duration = Field(default=600.0, json_schema_extra={"default": "10m"})
    """How long a started ComfyUI may take until it answers."""


class Render(Config):
    # Validated although it is a default, so that it becomes absolute like a written one.
    output_dir: LocalPath = Field(default=Path("outputs"), validate_default=True)
    """Folder for output files; relative to the project file, or to the current folder without one."""
    naming: Naming = "{stem}{ext}"
    """Name of each output file; `/` makes subfolders and `{index:03}` pads with zeros.
    Fields: {run_id} {prompt} {node_id} {title} {class_type} {index} {stem} {ext} {seed} {workflow}"""


class Project(Config):
    """A comfymodal project file."""

    version: Annotated[Literal[1], BeforeValidator(_refuse_lookalikes)]
    """Version of the file format."""
    project: ProjectName = "default"
    """Name of the project; runs and costs are recorded under it."""
    target: Literal["local"] = "local"
    """Where jobs run: `local` is this machine."""
    volumes: Volumes = Field(default_factory=Volumes)
    """Named places for models, input files and output files."""
    comfyui: ComfyUI = Field(default_factory=ComfyUI)
    """Which ComfyUI renders: a running server, or an installation to start."""
    render: Render = Field(default_factory=Render)
    """Where output files go and how they are named."""


def sections() -> Mapping[str, tuple[str, ...]]:
    """Give the legal keys of every place that has keys, by dotted name; the top of the file is ``."""
    return {place: tuple(model.model_fields) for place, model in _models(Project, "")}


def leaves() -> Mapping[str, LeafKind]:
    """Give every key that holds a value, by dotted name in the order of the schema."""
    return dict(_leaves(Project, ""))


def _models(model: type[Config], place: str) -> Iterator[tuple[str, type[Config]]]:
    yield place, model
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            yield from _models(field.annotation, f"{place}.{name}".lstrip("."))


def _leaves(model: type[Config], place: str) -> Iterator[tuple[str, LeafKind]]:
    for name, field in model.model_fields.items():
        key = f"{place}.{name}".lstrip(".")
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            yield from _leaves(field.annotation, key)
        else:
            yield key, _kind(field.annotation)


def _kind(annotation: Any) -> LeafKind:
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return "text" if isinstance(get_args(annotation)[0], str) else "scalar"
    if get_origin(annotation) is tuple:
        return "list"
    if type(None) in get_args(annotation):
        return _kind(get_args(annotation)[0])
    kinds: Mapping[Any, LeafKind] = {str: "text", Path: "path"}
    return kinds.get(annotation, "scalar")
