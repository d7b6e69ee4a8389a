"""The kinds of values of remotes, sync pairs and mounts. Reads no files."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ValidationInfo, WithJsonSchema

from comfymodal.project.ends import absolute_end, check_folder
from comfymodal.project.problems import Mistake
from comfymodal.project.remotes import BUCKET_PATTERN, NAME_PATTERN, check_bucket, check_entry_name, check_remote_name
from comfymodal.project.values import checked, matching, url


def _parse_end(text: str, info: ValidationInfo) -> str:
    return absolute_end(text, base=(info.context or {}).get("base"))


def _check_glob(glob: str) -> str:
    # Nobody pays for importing the filters whose project has none.
    from comfymodal.errors import UsageError
    from comfymodal.storage.filters import compile_glob

    try:
        compile_glob(glob)
    except UsageError as exc:
        raise Mistake(exc.message, hint=exc.hint) from exc
    return glob


RemoteName = Annotated[str, *checked(check_remote_name, NAME_PATTERN)]
EntryName = Annotated[str, *checked(check_entry_name, NAME_PATTERN)]
Bucket = Annotated[str, *checked(check_bucket, BUCKET_PATTERN)]
Endpoint = Annotated[str, *url("https://s3.us-west-004.backblazeb2.com")]
Region = Annotated[
    str, *matching("[a-z0-9][a-z0-9-]{0,62}", "lower-case letters, digits and dashes, for example us-east-1")
]

FolderIn = Annotated[str, AfterValidator(check_folder), WithJsonSchema({"type": "string"})]
"""A folder in a bucket, without slashes at its ends; empty for the whole."""

EndText = Annotated[str, AfterValidator(_parse_end), WithJsonSchema({"type": "string", "minLength": 1})]
"""An end of a sync as `project.ends` reads it; folders are absolute once validated with a `base` in the context."""

Glob = Annotated[str, AfterValidator(_check_glob), WithJsonSchema({"type": "string", "minLength": 1})]
"""A pattern for files as `storage.filters` reads it."""
