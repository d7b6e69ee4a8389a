"""How ai-toolkit is started: which Python, which arguments, which environment, which config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfymodal.errors import NotReadyError

PATH_VARIABLE = "AI_TOOLKIT_PATH"
PYTHON_VARIABLE = "AI_TOOLKIT_PYTHON"

LOG_SPEED_EVERY = 10


@dataclass(frozen=True, slots=True)
class Toolkit:
    """A checkout of ai-toolkit, and the Python that has what it needs."""

    path: Path
    python: Path


def find_toolkit(environ: Mapping[str, str]) -> Toolkit:
    """The one the environment names. Raises `NotReadyError`."""
    hint = f"set {PATH_VARIABLE} to a checkout of ai-toolkit and {PYTHON_VARIABLE} to the Python it runs with"
    found = {}
    for variable in (PATH_VARIABLE, PYTHON_VARIABLE):
        if not environ.get(variable):
            raise NotReadyError(f"where ai-toolkit is, is not known: {variable} is not set", hint=hint)
        found[variable] = Path(environ[variable])
    toolkit = Toolkit(found[PATH_VARIABLE], found[PYTHON_VARIABLE])
    if not (toolkit.path / "run.py").is_file():
        raise NotReadyError(f"{toolkit.path} is no checkout of ai-toolkit: it has no run.py", hint=hint)
    if not toolkit.python.exists():
        raise NotReadyError(f"the Python for ai-toolkit, {toolkit.python}, is not there", hint=hint)
    return toolkit


def build_argv(toolkit: Toolkit, config: Path) -> list[str]:
    """Absolute, because run.py looks for configs in a folder of its own first."""
    return [str(toolkit.python), "run.py", str(config.absolute())]


def build_environ(environ: Mapping[str, str], job_id: str) -> dict[str, str]:
    """What the trainer gets of our environment and beside it."""
    # Any of tqdm's variables reaches the constructor of its bars as text; TQDM_ASCII=1 ends the run.
    kept = {key: value for key, value in environ.items() if not key.startswith("TQDM_")}
    return {
        **kept,
        "AITK_JOB_ID": job_id,
        # Events would be minutes late: prints into a pipe are kept back by the block.
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        # All it does: no table of timings, of thirty lines, each time the speed is told.
        "IS_AI_TOOLKIT_UI": "1",
    }


def localized(config: Mapping[str, Any], *, training_folder: Path, control: Path) -> dict[str, Any]:
    """The config with the paths of one attempt in it and its logs switched on; `config` is as `rewrite` made it."""
    made: dict[str, Any] = copy.deepcopy(dict(config))
    (process,) = made["config"]["process"]
    process["training_folder"] = str(training_folder)
    process["sqlite_db_path"] = str(control)
    process.setdefault("performance_log_every", LOG_SPEED_EVERY)
    process["logging"] = {**(process.get("logging") or {}), "use_ui_logger": True, "log_every": 1}
    return made
