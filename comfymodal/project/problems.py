"""Mistakes in a project file: where they are and what to do about them, collected into one error. Reads no files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from comfymodal.errors import ProjectError
from comfymodal.secret_shapes import looks_secret, without_secrets

__all__ = ["Mark", "Mistake", "Problem", "looks_secret", "printable", "project_error"]


class Mistake(ValueError):
    """What is wrong with one value, in words that follow its key: `must be ...`; `hint` says what to do.

    Of a whole section, `at` names the keys it is about: the first that is written is where the mistake is shown.
    """

    def __init__(self, message: str, *, hint: str | None = None, at: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.at = at


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a value was written: a file with line and column (from 1), an env var, a flag, or nowhere."""

    file: str | None = None
    line: int | None = None
    column: int | None = None
    variable: str | None = None
    is_flag: bool = False

    @property
    def where(self) -> str:
        """What stands before the message: `comfymodal.yaml:8:5`, the env var's name, or `flag`."""
        if self.file is not None:
            return f"{self.file}:{self.line}:{self.column}" if self.line is not None else self.file
        return self.variable or ("flag" if self.is_flag else "default")

    @property
    def origin(self) -> str:
        """Which layer the value comes from, for `config show`."""
        if self.file is not None:
            return f"file {self.file}:{self.line}"
        return f"environment {self.variable}" if self.variable else self.where


@dataclass(frozen=True, slots=True)
class Problem:
    mark: Mark
    key: str
    message: str
    hint: str | None = None

    def to_dict(self) -> dict[str, object]:
        words = {"key": self.key, "message": self.message, "hint": self.hint}
        return {**asdict(self.mark), "place": self.mark.where, **words}

    def __str__(self) -> str:
        return f"{self.mark.where}: {f'{self.key}: ' if self.key else ''}{self.message}"


def project_error(problems: Iterable[Problem]) -> ProjectError:
    """Build the one error that carries every problem: the first in file order is the message, all are in `problems`."""
    ordered = [_fit(problem) for problem in sorted(problems, key=_file_order)]
    first, more = ordered[0], len(ordered) - 1
    message = f"{first} (and {more} more)" if more else str(first)
    return ProjectError(message, hint=first.hint, problems=[problem.to_dict() for problem in ordered])


def printable(text: str, *, longest: int = 60) -> str:
    """Make text from a file fit for one line of a terminal: no secrets, control characters, lone surrogates, novels."""
    text = without_secrets(text)
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


def _fit(problem: Problem) -> Problem:
    # Messages quote what stands in the file, and PyYAML's do so unasked.
    hint = problem.hint and printable(problem.hint, longest=300)
    key, message = printable(problem.key, longest=200), printable(problem.message, longest=300)
    return replace(problem, key=key, message=message, hint=hint)


def _file_order(problem: Problem) -> tuple[bool, int, int]:
    mark = problem.mark
    return mark.file is None, mark.line or 0, mark.column or 0
