"""`run.py CONFIG`: reads the config, runs the job, prints and exits as ai-toolkit does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from tests.doubles.trainer.process import TrainProcess

KINDS = ("diffusion_trainer", "sd_trainer", "ui_trainer")
RULE = "=" * 40


def main(arguments: list[str], kind: type[TrainProcess] = TrainProcess) -> None:
    print("Running 1 job")
    try:
        process = prepare(read_config(Path(arguments[0])), kind)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is said and raised again
        print(f"Error running job: {exc}")
        print("Error running on_error: cannot access local variable 'job' where it is not associated with a value")
        give_up(exc)
    try:
        print(f"\n{'#' * 45}\n# Running job: {process.name}\n{'#' * 45}\n\n\nRunning  1 process")
        process.run()
    except KeyboardInterrupt as exc:
        process.on_error(exc)
        # After the bar, on a line of its own; nothing is saved, and the exit code is 0.
        print(f"\n{RULE}\nJob stopped\n{RULE}")
        sys.exit(0)
    except Exception as exc:  # noqa: BLE001
        print(f"Error running job: {exc}")
        process.on_error(exc)
        give_up(exc)
    sys.exit(process.exit_code())


def read_config(path: Path) -> dict[str, Any]:
    """JSON only."""
    config = json.loads(path.read_text())
    for key, fault in (("job", "have a job key"), ("config", "have a config section")):
        if key not in config:
            raise ValueError(f"config file must {fault}")
    if "name" not in config["config"]:
        raise ValueError("config file must have a config.name key")
    assert isinstance(config, dict)
    return config


def prepare(config: dict[str, Any], kind: type[TrainProcess]) -> TrainProcess:
    processes = config["config"].get("process")
    if not processes:
        raise ValueError('config file is invalid. Missing "config.process" key')
    if processes[0].get("type") not in KINDS:
        raise ValueError(f"config file is invalid. Unknown process type: {processes[0].get('type')}")
    print(json.dumps(processes[0], indent=4))
    if not processes[0].get("model", {}).get("name_or_path"):
        raise ValueError("name_or_path must be specified")
    return kind(str(config["config"]["name"]), processes[0])


def give_up(exc: Exception) -> NoReturn:
    print(f"\n{RULE}\nResult:\n - 0 completed jobs\n - 1 failure\n{RULE}")
    raise exc


if __name__ == "__main__":
    main(sys.argv[1:])
