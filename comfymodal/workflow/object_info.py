"""What ComfyUI's /object_info says about a class: read tolerantly, since custom nodes write all sorts there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ObjectInfo = Mapping[str, Mapping[str, Any]]
"""class_type -> its /object_info entry; a missing or empty entry means the class is unknown."""

COMBO = "COMBO"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One declared input. *options* is None when the list of a COMBO is not known here (remote, dynamic)."""

    name: str
    type: str
    options: tuple[Any, ...] | None
    settings: Mapping[str, Any]
    is_required: bool

    @property
    def types(self) -> frozenset[str]:
        """The members of a union such as "IMAGE,MASK"."""
        return frozenset(part.strip() for part in self.type.split(","))

    @property
    def is_upload(self) -> bool:
        """True for image_upload, audio_upload, video_upload, file_upload, and whatever comes next."""
        return any(key.endswith("_upload") and value is True for key, value in self.settings.items())

    @property
    def is_dynamic(self) -> bool:
        """True for V3's autogrow, dynamic combo, match type: what they accept depends on other inputs."""
        return is_dynamic_type(self.type)


def is_dynamic_type(name: str) -> bool:
    return name.startswith("COMFY_")


def class_entry(object_info: ObjectInfo, class_type: str) -> Mapping[str, Any] | None:
    """Return the class's entry, or None when the server does not know it (it answers `{}` then)."""
    entry = object_info.get(class_type)
    return entry if isinstance(entry, Mapping) and entry else None


def input_specs(entry: Mapping[str, Any] | None) -> dict[str, InputSpec]:
    """Return the required and optional inputs in declared order; hidden ones are the server's own business."""
    found: dict[str, InputSpec] = {}
    for section in ("required", "optional"):
        for name, raw in _section(entry, section).items():
            found.setdefault(name, _spec(name, raw, is_required=section == "required"))
    return found


def hidden_names(entry: Mapping[str, Any] | None) -> frozenset[str]:
    return frozenset(_section(entry, "hidden"))


def output_types(entry: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the type of each slot ("COMBO" for a list of choices); None when the entry does not say."""
    raw = entry.get("output")
    if not isinstance(raw, list | tuple):
        return None
    return tuple(item if isinstance(item, str) else COMBO for item in raw)


def _section(entry: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    inputs = entry.get("input") if entry else None
    section = inputs.get(name) if isinstance(inputs, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def _spec(name: str, raw: Any, *, is_required: bool) -> InputSpec:
    parts = raw if isinstance(raw, list | tuple) else [raw]
    kind = parts[0] if parts else None
    settings: Mapping[str, Any] = parts[1] if len(parts) > 1 and isinstance(parts[1], Mapping) else {}
    choices = settings.get("options") if kind == COMBO else kind
    options = tuple(choices) if isinstance(choices, list | tuple) else None
    if "remote" in settings:
        options = None  # the page asks another address for the list; what stands here is a stub
    type_name = kind if isinstance(kind, str) else COMBO
    return InputSpec(name=name, type=type_name, options=options, settings=settings, is_required=is_required)
