"""Text that has the shape of a token or a key: found, and hidden. Standard library only."""

from __future__ import annotations

import re

# The shapes of Modal tokens, Hugging Face tokens, AWS key ids, B2 application keys, Slack tokens and Slack webhooks.
_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:a[ks]-[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16}|K00[0-9][A-Za-z0-9+/]{27}"
    r"|xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}"
    r"|https://hooks\.slack(?:-gov)?\.com/[a-z]+/[A-Za-z0-9_/-]{8,})"
    r"(?![A-Za-z0-9])"
)


def looks_secret(text: str) -> bool:
    """Whether the text has the shape of a token or key in it."""
    return _SECRET.search(text) is not None


def without_secrets(text: str) -> str:
    """Put stars where a token or key stands."""
    return _SECRET.sub("***", text)
