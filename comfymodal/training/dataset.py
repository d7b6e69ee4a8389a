"""A folder of pictures and captions: what a trainer takes from it, read whole. Judges nothing: see `dataset_checks`.

What is taken (suffixes, folders that are passed over) and how a size becomes a bucket is the trainer's: `Rules`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from comfymodal.training.buckets import Fit, Sharing
from comfymodal.training.captions import Caption, read_caption
from comfymodal.training.images import Broken, Picture, quiet_pillow, read_picture

Role = Literal["picture", "caption", "media", "mask", "control"]
"""`media` are videos and sounds: hashed, not opened."""

OnProgress = Callable[[int, int], None]
"""`on_progress(done, total)`, in files; called in the caller's thread."""

_MOST_THREADS = 8


@dataclass(frozen=True, slots=True)
class Rules:
    """What one trainer does with a folder, for one architecture."""

    picture_suffixes: tuple[str, ...]
    """Lower case, with the dot; the case of a file's own does not matter. Empty where it learns no pictures."""
    media_suffixes: tuple[str, ...]
    """Other files it can learn; only taken when the settings say so, or when there are no pictures to learn."""
    passed_over: frozenset[str]
    """Names of folders whose own files are not taken; hidden ones never are."""
    fit: Fit
    divisibility: int
    """Pixels that every bucket's edge is a multiple of."""
    placeholders: tuple[str, ...] = ()
    """What a caption may hold in place of the trigger."""
    caption_tokens: int | None = None
    """Beyond which the text encoder reads nothing; None where it is not known."""


@dataclass(frozen=True, slots=True)
class DatasetSettings:
    """One dataset as a config asks for it."""

    folder: Path
    resolutions: tuple[int, ...] = (512,)
    caption_suffix: str = ".txt"
    default_caption: str | None = None
    trigger: str | None = None
    sharing: Sharing = field(default_factory=Sharing)
    scale: float = 1.0
    """Sizes are multiplied by it before anything else."""
    is_square: bool = False
    """Every picture is cropped to one square, in whatever buckets."""
    is_regular: bool = False
    """A regularization set: the trigger is not added to its captions."""
    takes_media: bool = False
    alpha_is_mask: bool = False
    masks: Path | None = None
    controls: tuple[Path, ...] = ()
    needs_controls: bool = False

    @property
    def added_trigger(self) -> str | None:
        """The trigger that the trainer puts in front of captions without it."""
        return None if self.is_regular else self.trigger


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder's files by what becomes of them; POSIX paths relative to it, sorted."""

    pictures: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    """Captions among them."""
    passed_over: tuple[str, ...] = ()
    """Files the trainer would learn if they, or their folder, were not passed over."""
    links: tuple[str, ...] = ()
    """Folders that are links: they are not entered."""
    unread: tuple[str, ...] = ()
    """Folders that could not be listed."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to learn. `picture` is None for media; `caption` where there is no such file."""

    path: str
    picture: Picture | Broken | None
    caption_path: str
    caption: Caption | None

    @property
    def size(self) -> tuple[int, int] | None:
        return (self.picture.width, self.picture.height) if isinstance(self.picture, Picture) else None


@dataclass(frozen=True, slots=True)
class Companion:
    """A mask or control of one item, by the stem of its name; `picture` is None where there is none."""

    role: Role
    folder: Path
    of: str
    path: str | None
    picture: Picture | Broken | None


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """One file that training reads, for an upload. `path` is POSIX, relative to `folder`."""

    role: Role
    folder: Path
    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything a dataset consists of, as it was found."""

    listing: Listing
    items: tuple[Item, ...]
    companions: tuple[Companion, ...]
    files: tuple[DatasetFile, ...]

    @property
    def usable(self) -> tuple[Item, ...]:
        """What the trainer will keep: it drops what does not open, without failing."""
        return tuple(item for item in self.items if not isinstance(item.picture, Broken))


def list_folder(folder: Path, rules: Rules, *, takes_media: bool) -> Listing:
    """List what the trainer would find. A folder that is not there is one that could not be listed."""
    found: dict[str, list[str]] = {name: [] for name in ("pictures", "media", "others", "passed_over", "links")}
    unread: list[str] = []

    def note(error: OSError) -> None:
        unread.append(_relative(Path(error.filename or folder), folder))

    for root, folders, names in os.walk(folder, onerror=note):
        here = Path(root)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found["links"] += [_relative(here / name, folder) for name in folders if (here / name).is_symlink()]
        for name in names:
            found[_kind(name, here.name if here != folder else "", rules, takes_media)].append(
                _relative(here / name, folder)
            )
    return Listing(**{name: tuple(sorted(paths)) for name, paths in found.items()}, unread=tuple(sorted(unread)))


def load_dataset(settings: DatasetSettings, rules: Rules, on_progress: OnProgress | None = None) -> Contents:
    """Read and decode every file. Raises nothing for what is wrong with them; `KeyboardInterrupt` stops at once."""
    listing = list_folder(settings.folder, rules, takes_media=settings.takes_media)
    captions = _captions(listing, settings)
    others = set(listing.others)
    companions = list(_companions(listing, settings, rules))
    wanted: list[tuple[Role, Path, str]] = [
        *(("picture", settings.folder, path) for path in listing.pictures),
        *(("media", settings.folder, path) for path in listing.media),
        *(("caption", settings.folder, path) for path in dict.fromkeys(captions.values()) if path in others),
        *((role, folder, path) for role, folder, _, path in companions if path is not None),
    ]
    read = _read_all(list(dict.fromkeys(wanted)), on_progress)
    items = tuple(_item(path, captions[path], settings.folder, read) for path in _learned(listing))
    return Contents(
        listing,
        items,
        tuple(
            Companion(role, folder, of, path, _as_picture(read.get((role, folder, path or ""))))
            for role, folder, of, path in companions
        ),
        tuple(_files(read)),
    )


def stem(path: str) -> str:
    """The path less its last suffix: `a/b.c.png` -> `a/b.c`."""
    return os.path.splitext(path)[0]


@dataclass(frozen=True, slots=True)
class _Media:
    """A file that was hashed and not opened; `sha256` is empty where it could not be read."""

    size_bytes: int
    sha256: str


_Read = Picture | Broken | Caption | _Media
_Wanted = tuple[Role, Path, str]


def _kind(name: str, parent: str, rules: Rules, takes_media: bool) -> str:
    lower = name.lower()
    is_picture = lower.endswith(rules.picture_suffixes) if rules.picture_suffixes else False
    is_media = (takes_media or not rules.picture_suffixes) and lower.endswith(rules.media_suffixes)
    if not is_picture and not is_media:
        return "others"
    if name.startswith(".") or parent in rules.passed_over:
        return "passed_over"
    return "pictures" if is_picture else "media"


def _learned(listing: Listing) -> Iterator[str]:
    yield from listing.pictures
    yield from listing.media


def _captions(listing: Listing, settings: DatasetSettings) -> dict[str, str]:
    return {path: stem(path) + settings.caption_suffix for path in _learned(listing)}


def _companions(
    listing: Listing, settings: DatasetSettings, rules: Rules
) -> Iterator[tuple[Role, Path, str, str | None]]:
    """Masks and controls lie flat in their folders, named as the picture they belong to; suffixes in lower case."""
    folders: list[tuple[Role, Path]] = [("control", folder) for folder in settings.controls]
    folders += [("mask", settings.masks)] if settings.masks and not settings.alpha_is_mask else []
    for role, folder in folders:
        names = set(os.listdir(folder)) if folder.is_dir() else set()
        for path in listing.pictures:
            name = stem(path).rpartition("/")[2]
            candidates = (name + suffix for suffix in rules.picture_suffixes)
            yield role, folder, path, next((each for each in candidates if each in names), None)


def _read_all(wanted: Sequence[_Wanted], on_progress: OnProgress | None) -> dict[_Wanted, _Read]:
    """Pillow and hashlib let go of the interpreter while they work: threads use all cores."""
    found: dict[_Wanted, _Read] = {}
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="pictures")
    with quiet_pillow():
        try:
            for task, result in zip(wanted, pool.map(_read_one, wanted), strict=True):
                found[task] = result
                if on_progress:
                    on_progress(len(found), len(wanted))
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def _read_one(task: _Wanted) -> _Read:
    role, folder, path = task
    if role == "caption":
        return read_caption(folder / path)
    return _read_media(folder / path) if role == "media" else read_picture(folder / path)


def _read_media(path: Path) -> _Media:
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            return _Media(stream.tell(), sha256)
    except OSError:
        return _Media(0, "")


def _item(path: str, caption_path: str, folder: Path, read: Mapping[_Wanted, _Read]) -> Item:
    caption = read.get(("caption", folder, caption_path))
    media = read.get(("media", folder, path))
    unreadable = Broken("it cannot be read") if isinstance(media, _Media) and not media.sha256 else None
    picture = _as_picture(read.get(("picture", folder, path))) or unreadable
    return Item(path, picture, caption_path, caption if isinstance(caption, Caption) else None)


def _as_picture(value: _Read | None) -> Picture | Broken | None:
    return value if isinstance(value, Picture | Broken) else None


def _files(read: Mapping[_Wanted, _Read]) -> Iterator[DatasetFile]:
    """What is broken is left out: a training must not depend on it."""
    for (role, folder, path), value in read.items():
        if not isinstance(value, Broken) and value.sha256:
            yield DatasetFile(role, folder, path, value.size_bytes, value.sha256)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
