"""Sample prompts as ai-toolkit reads them: a trigger to put in, and flags behind the text. Pure.

Read in ai-toolkit 27a03a9: `toolkit/config_modules.py`, `toolkit/prompt_utils.py`.
"""

from __future__ import annotations

_FLAG = "--"
_PLACEHOLDERS = ("[trigger]", "[name]")


def spoken(prompt: str, trigger: str | None) -> str:
    """What the model is told: the trigger is put in, flags such as `--w 768` are left out."""
    text = prompt.strip().partition(_FLAG)[0].strip()
    for placeholder in _PLACEHOLDERS if trigger else ():
        text = text.replace(placeholder, str(trigger))
    return text
