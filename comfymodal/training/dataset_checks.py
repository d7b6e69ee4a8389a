"""What is wrong with a dataset, all of it at once. Pure: works on what `dataset.load_dataset` read.

A trainer says little of it: it drops pictures that do not open, trains missing captions as empty ones, and leaves out
what it does not know, each without failing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from comfymodal.training.buckets import Epoch
from comfymodal.training.captions import Caption, least_tokens, trigger_use
from comfymodal.training.dataset import Contents, DatasetSettings, Item, Rules, stem
from comfymodal.training.images import ALIKE_BITS, Broken, Picture, Trait, looks_alike

Severity = Literal["error", "warning", "info"]
"""An error keeps a run from starting, or means that it would learn something else than what was asked for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one file, or about the whole dataset where `file` is None."""

    severity: Severity
    kind: str
    """A stable word for scripts: `broken_picture`, `no_caption`."""
    file: str | None
    message: str
    hint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.file}: {self.message}" if self.file is not None else self.message


@dataclass(frozen=True, slots=True)
class Group:
    """Findings of one kind, for a person to read: a thousand missing captions are one line."""

    severity: Severity
    kind: str
    findings: tuple[Finding, ...]

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(finding.file for finding in self.findings if finding.file is not None)

    @property
    def message(self) -> str:
        """The first finding in full, and how many more there are."""
        more = len(self.findings) - 1
        return f"{self.findings[0]} (and {more} more)" if more else str(self.findings[0])


def group_findings(findings: Iterable[Finding]) -> tuple[Group, ...]:
    """One group for each kind, in the order in which the first of each comes."""
    found: defaultdict[tuple[Severity, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        found[finding.severity, finding.kind].append(finding)
    return tuple(Group(severity, kind, tuple(group)) for (severity, kind), group in found.items())


FEW = 5
"""Pictures below which a LoRA learns little else than those."""
_WIDE = 3.0
_MOST_COMPARED = 200
"""Pictures that share a quarter of their looks; more of them (black borders, white backgrounds) say nothing."""
_OTHER_PICTURES = (".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jfif", ".psd")
_VIDEOS = (".mp4", ".avi", ".mov", ".webm", ".mkv", ".wmv", ".m4v", ".flv")
_CAPTIONS = (".txt", ".caption", ".captions", ".json")
_CONTROL_CHARACTERS = frozenset(map(chr, (*range(32), 127)))


def find_faults(settings: DatasetSettings, rules: Rules, contents: Contents) -> tuple[Finding, ...]:
    """Everything that is wrong or odd, errors first, then by kind and file."""
    if not settings.folder.is_dir():
        what = "is no folder" if settings.folder.exists() else "does not exist"
        hint = "a JSON dataset names files of one machine: put them and their captions into a folder"
        is_json = settings.folder.suffix.lower() == ".json"
        return (Finding("error", "no_folder", None, f"{settings.folder} {what}", hint if is_json else None),)
    checks: tuple[Callable[[DatasetSettings, Rules, Contents], Iterable[Finding]], ...] = (
        *(_amount, _names, _left_out, _pictures, _sizes, _same, _alike),
        *(_captions, _missing_captions, _triggers, _stray_captions, _companions),
    )
    found = [_printable(finding) for check in checks for finding in check(settings, rules, contents)]
    order = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(found, key=lambda each: (order[each.severity], each.kind, each.file or "")))


def find_length_faults(epoch: Epoch, steps: int, pictures: int, batch_size: int) -> Iterator[Finding]:
    """Whether a run is far too short or too long for its dataset. `pictures`: different ones, in all datasets."""
    if not epoch.batches or not pictures:
        return
    if steps < epoch.steps:
        yield Finding(
            "warning",
            "short_run",
            None,
            f"{steps} steps end before every picture was seen: an epoch has {epoch.steps:g}",
            "more steps, fewer repeats or fewer resolutions",
        )
    shown = steps * batch_size * epoch.accumulation / pictures
    if shown > 400:
        yield Finding(
            "warning",
            "long_run",
            None,
            f"every picture would be shown {shown:.0f} times; 50 to 200 are usual",
            "fewer steps, or keep checkpoints often and take an early one",
        )


def _amount(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    usable = len(contents.usable)
    kinds = ", ".join(rules.picture_suffixes or rules.media_suffixes)
    if not contents.items:
        yield Finding("error", "empty", None, f"nothing to learn in {settings.folder}", f"it takes {kinds}")
    elif not usable:
        yield Finding("error", "empty", None, f"none of {len(contents.items)} files in {settings.folder} opens")
    elif settings.takes_media and not contents.listing.media:
        hint = "num_frames: 1 (or no auto_frame_count) for pictures"
        yield Finding("error", "no_videos", None, "the config asks for videos, and there are only pictures", hint)
    elif usable < FEW and not settings.is_regular:
        hint = "15 to 50 different pictures are usual"
        yield Finding("warning", "few", None, f"{_count(usable, 'file')} to learn from", hint)


def _names(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    for item in contents.items:
        try:
            item.path.encode("utf-8")
        except UnicodeEncodeError:
            yield Finding("error", "bad_name", item.path, "its name is not valid UTF-8", "rename it")
            continue
        if not _CONTROL_CHARACTERS.isdisjoint(item.path):
            yield Finding("error", "bad_name", item.path, "its name holds a control character", "rename it")
    stems: defaultdict[str, list[str]] = defaultdict(list)
    for item in contents.items:
        stems[stem(item.path)].append(item.path)
    for group in stems.values():
        for path in group[1:]:
            yield Finding("warning", "shared_caption", path, f"it shares its caption with {group[0]}", "rename one")


def _left_out(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    listing = contents.listing
    for path in listing.unread:
        yield Finding("error", "unread_folder", path, "this folder cannot be listed")
    for path in listing.links:
        hint = "copy it, or name it as a dataset of its own"
        yield Finding("warning", "linked_folder", path, "this folder is a link: the trainer does not enter it", hint)
    taken = ", ".join(rules.picture_suffixes)
    for path in listing.others:
        lower = path.lower()
        if lower.endswith(_OTHER_PICTURES):
            hint = f"convert it; it takes {taken}"
            yield Finding("warning", "other_format", path, "the trainer does not take this format", hint)
        elif lower.endswith(_VIDEOS) and not settings.takes_media:
            hint = "num_frames above 1 takes videos"
            yield Finding("warning", "video", path, "videos are left out: the config asks for pictures", hint)
    if listing.passed_over:
        what = f"{_count(len(listing.passed_over), 'file')} passed over: hidden, or in a folder of the trainer's own"
        yield Finding("info", "passed_over", None, what)


_TRAITS: dict[Trait, tuple[Severity, str, str | None]] = {
    "animated": ("warning", "it moves: only its first frame is learned", "save the frames you want as pictures"),
    "cmyk": ("warning", "it is CMYK (for print): its colours will be off", "convert it to sRGB"),
    "deep_gray": ("error", "it has one channel of 16 bits or more: the trainer clips it to white", "save it in 8 bits"),
    "odd_format": ("warning", "its content is of a format that not every release of Pillow opens", "save it as PNG"),
    "transparent": (
        "warning",
        "it has transparent parts: they are learned in whatever colour lies below",
        "lay it on a background, or use alpha_mask",
    ),
}


def _pictures(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    rotated = 0
    for item in contents.items:
        if isinstance(item.picture, Broken):
            hint = "replace or remove it; the trainer would leave it out without a word"
            yield Finding("error", "broken_picture", item.path, item.picture.why, hint)
            continue
        traits = item.picture.traits if item.picture else frozenset()
        rotated += "rotated" in traits
        for trait in sorted(traits & _TRAITS.keys()):
            if trait == "transparent" and settings.alpha_is_mask:
                continue
            severity, message, remedy = _TRAITS[trait]
            yield Finding(severity, trait, item.path, message, remedy)
        if settings.alpha_is_mask and "no_alpha" in traits:
            hint = "give it an alpha channel, or set alpha_mask: false"
            yield Finding("error", "no_alpha", item.path, "alpha_mask is on, and it has no alpha channel", hint)
    if rotated:
        what = f"{_count(rotated, 'picture')} turned by what its camera noted; the trainer turns them too"
        yield Finding("info", "rotated", None, what)


def _sizes(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    least = min(settings.resolutions)
    for item in contents.usable:
        if item.size is None:
            continue
        width, height = item.size
        if min(width, height) < rules.divisibility:
            hint = f"remove it: a bucket's edge has at least {rules.divisibility}"
            yield Finding("warning", "tiny", item.path, f"it has {width} x {height} pixels", hint)
        elif width * height * settings.scale**2 < least * least:
            what = f"it has {width} x {height} pixels, fewer than {least} x {least}: it is not scaled up"
            yield Finding("warning", "small", item.path, what, "use a larger one, or a lower resolution")
        longer, shorter = max(width, height), min(width, height)
        if longer > _WIDE * shorter:
            what = f"it is {longer / shorter:.1f} times as long as wide ({width} x {height})"
            yield Finding("warning", "long", item.path, what, "crop it to what matters")


def _same(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for path, picture in _opened(contents):
        other = first.setdefault(picture.sha256, path)
        if other != path:
            yield Finding("warning", "duplicate", path, f"the same file as {other}", "remove one: num_repeats repeats")


def _alike(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    different = {picture.sha256: (path, picture.look) for path, picture in reversed(list(_opened(contents)))}
    looks = sorted((path, look) for path, look in different.values() if look is not None)
    nearest: dict[str, str] = {}
    for one, other in _similar(looks):
        nearest.setdefault(other, one)
    for path, other in sorted(nearest.items()):
        yield Finding("warning", "look_alike", path, f"it looks like {other}", "keep the better one")


def _similar(looks: Sequence[tuple[str, int]]) -> Iterator[tuple[str, str]]:
    """Pairs that differ in few bits, in order: those have at least one of four quarters in common."""
    quarters = ALIKE_BITS + 1
    width = 64 // quarters
    shared: defaultdict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for path, look in looks:
        for quarter in range(quarters):
            shared[quarter, look >> quarter * width & (1 << width) - 1].append((path, look))
    pairs = {
        (one[0], other[0])
        for group in shared.values()
        if len(group) <= _MOST_COMPARED
        for index, other in enumerate(group)
        for one in group[:index]
        if looks_alike(one[1], other[1])
    }
    yield from sorted(pairs)


def _captions(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    for item in contents.usable:
        caption = item.caption
        if caption is None:
            continue
        file = item.caption_path
        if caption.text is None:
            hint = "save it as UTF-8: the training would end when it comes to this file"
            yield Finding("error", "caption_encoding", file, caption.fault, hint)
            continue
        if caption.has_mark:
            what = "it begins with a byte order mark, which becomes part of the caption"
            yield Finding("warning", "caption_mark", file, what, "save it as UTF-8 without BOM")
        if caption.is_empty and settings.default_caption is None:
            yield Finding("warning", "empty_caption", file, _trained_with(settings), "write it, or set default_caption")
        yield from _caption_length(file, caption.text, rules)


def _caption_length(file: str, text: str, rules: Rules) -> Iterator[Finding]:
    most = rules.caption_tokens
    # Two of them are the marks of beginning and end.
    if most is not None and (tokens := least_tokens(text) + 2) > most:
        what = f"it has {tokens} tokens or more, and the text encoder reads {most}"
        yield Finding("warning", "long_caption", file, what, "what comes later is not learned: shorten it")


def _missing_captions(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    items = contents.usable
    missing = [item for item in items if item.caption is None]
    if settings.default_caption is not None:
        if missing:
            yield Finding("info", "default_caption", None, f"{_count(len(missing), 'file')} with the default caption")
        return
    others = set(contents.listing.others)
    for item in missing:
        hint = _other_caption(item, others) or f"write {item.caption_path}, or set default_caption"
        yield Finding("warning", "no_caption", item.path, _trained_with(settings), hint)
    if len(missing) * 2 > len(items) and not settings.added_trigger:
        what = f"{len(missing)} of {len(items)} files have no caption ({settings.caption_suffix})"
        hint = 'write them, set caption_ext or a trigger, or say default_caption: "" if that is meant'
        yield Finding("error", "captions_missing", None, what, hint)


def _other_caption(item: Item, others: set[str]) -> str | None:
    base, suffix = stem(item.path), item.caption_path.removeprefix(stem(item.path))
    for each in (*_CAPTIONS, *(other.upper() for other in _CAPTIONS), suffix.upper(), suffix.lower()):
        if base + each in others and each != suffix:
            return f"there is {base + each}: rename it, or set caption_ext: {each}"
    if item.path + suffix in others:
        return f"there is {item.path + suffix}: rename it to {item.caption_path}"
    return None


def _trained_with(settings: DatasetSettings) -> str:
    trigger = settings.added_trigger
    return f"it has no caption: trained with {trigger!r} alone" if trigger else "it has no caption: trained with none"


def _triggers(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    captions = [(item.caption_path, text) for item in contents.usable if (text := _text(item.caption))]
    trigger = settings.added_trigger
    if not trigger:
        for file, text in captions:
            if any(placeholder in text for placeholder in rules.placeholders) and not settings.trigger:
                hint = "set trigger_word; without one the placeholder is taken out"
                yield Finding("warning", "no_trigger", file, "it has a place for a trigger, and there is none", hint)
        return
    uses = [(file, trigger_use(text, trigger, rules.placeholders)) for file, text in captions]
    for file, use in uses:
        if use == "inside":
            what = f"the trigger {trigger!r} is only there as a part of other words, so it is not added"
            yield Finding("warning", "trigger_inside", file, what, "write it by itself, or choose a rarer trigger")
    if absent := sum(use == "absent" for _, use in uses):
        what = f"{_count(absent, 'caption')} without the trigger {trigger!r}: the trainer puts it in front"
        yield Finding("info", "trigger_absent", None, what)


def _stray_captions(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    if not settings.caption_suffix:
        return
    used = {item.caption_path for item in contents.items}
    for path in contents.listing.others:
        hidden = any(part.startswith(".") for part in path.split("/"))
        if path.endswith(settings.caption_suffix) and path not in used and not hidden:
            hint = "a caption has the name of its picture; the trainer reads no default.txt"
            yield Finding("warning", "stray_caption", path, "no picture has this name", hint)


def _companions(settings: DatasetSettings, rules: Rules, contents: Contents) -> Iterator[Finding]:
    folders = [*settings.controls, *([settings.masks] if settings.masks else [])]
    for folder in folders:
        if not folder.is_dir():
            yield Finding("error", "no_folder", None, f"{folder} does not exist")
        elif folder.resolve().is_relative_to(settings.folder.resolve()):
            hint = "put it beside the dataset"
            yield Finding("error", "companions_inside", None, f"{folder} lies in the dataset: it is learned too", hint)
    if settings.needs_controls and not settings.controls:
        yield Finding("error", "no_controls", None, "this model learns pairs, and there is no control_path")
    usable = {item.path for item in contents.usable}
    for each in contents.companions:
        if each.of not in usable or not each.folder.is_dir():
            continue
        if each.path is None:
            hint = f"{each.folder} has no file of that name"
            yield Finding("error", f"no_{each.role}", each.of, f"it has no {each.role}", hint)
        elif isinstance(each.picture, Broken):
            yield Finding("error", "broken_picture", str(each.folder / each.path), each.picture.why)


def _printable(finding: Finding) -> Finding:
    """File names are somebody else's text: no control characters, no lone surrogates."""
    file = None if finding.file is None else _escaped(finding.file)
    hint = None if finding.hint is None else _escaped(finding.hint)
    return replace(finding, file=file, message=_escaped(finding.message), hint=hint)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _opened(contents: Contents) -> Iterator[tuple[str, Picture]]:
    for item in contents.usable:
        if isinstance(item.picture, Picture):
            yield item.path, item.picture


def _text(caption: Caption | None) -> str:
    return caption.text or "" if caption and not caption.is_empty else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
