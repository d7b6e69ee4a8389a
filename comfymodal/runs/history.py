"""What earlier runs of a workflow took: how long the next one will take is read from here.

Of the ledger's `costs` only runs that succeeded, were measured and rendered count: what came from ComfyUI's cache says
nothing about the next one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SAMPLES = 20
"""So many of the newest runs count, for each GPU."""

_LOOKED_AT = 2000
"""Of one workflow: what was rendered longer ago on another GPU is not looked for."""

STEPS_THAT_TELL = 10
"""The first steps of a training are slower than the rest."""

_LIKE_THE_NEXT = "status = 'succeeded' AND measured IS NOT NULL AND run_s > 0 AND is_cached = 0"


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: its own paid seconds `run_s`, of which `load_s` went into loading models (None: not noted), for so many
    prompts. `gpu` is what was paid for.
    """

    gpu: str
    run_s: float
    load_s: float | None
    prompts: int

    def seconds_for(self, prompts: int) -> float:
        """How long as many prompts would have taken in the same container: models are loaded once."""
        load_s = min(self.load_s or 0.0, self.run_s)
        return load_s + (self.run_s - load_s) / max(1, self.prompts) * prompts


def of_workflow(connection: sqlite3.Connection, fingerprint: str) -> list[Sample]:
    """The newest 20 runs of this workflow on each GPU, the newest first."""
    rows = connection.execute(
        "SELECT gpu_billed, run_s, load_s, prompts FROM (SELECT *, row_number() OVER"
        " (PARTITION BY gpu_billed ORDER BY created_at DESC, run_id DESC) AS place FROM (SELECT * FROM costs"
        f" WHERE fingerprint = ? AND fingerprint <> '' AND kind = 'render' AND {_LIKE_THE_NEXT}"
        " ORDER BY created_at DESC LIMIT ?)) WHERE place <= ? ORDER BY created_at DESC, run_id DESC",
        (fingerprint, _LOOKED_AT, SAMPLES),
    ).fetchall()
    return [Sample(gpu, run_s, load_s, prompts) for gpu, run_s, load_s, prompts in rows]


def of_title(connection: sqlite3.Connection, kind: str, title: str, target: str) -> list[Sample]:
    """The newest 20 runs of another kind: of the same pair, say."""
    rows = connection.execute(
        f"SELECT gpu_billed, run_s, NULL, 1 FROM costs WHERE kind = ? AND workflow = ? AND target = ?"
        f" AND {_LIKE_THE_NEXT} ORDER BY created_at DESC, run_id DESC LIMIT ?",
        (kind, title, target, SAMPLES),
    ).fetchall()
    return [Sample(*row) for row in rows]


def start_ups(connection: sqlite3.Connection, kind: str, gpus: Sequence[str]) -> list[float]:
    """Seconds in which the newest 20 containers with one of these GPUs started."""
    marks = ", ".join("?" for _ in gpus)
    rows = connection.execute(
        f"SELECT start_s FROM costs WHERE kind = ? AND gpu_billed IN ({marks}) AND start_s > 0"
        " AND measured IS NOT NULL ORDER BY created_at DESC, run_id DESC LIMIT ?",
        (kind, *gpus, SAMPLES),
    ).fetchall()
    return [row[0] for row in rows]


def peak_vram(connection: sqlite3.Connection, fingerprint: str) -> int | None:
    """The most bytes of GPU memory that were seen in use while this workflow rendered, wherever; None: never seen."""
    query = "SELECT max(peak_vram_bytes) FROM costs WHERE fingerprint = ? AND fingerprint <> ''"
    found: int | None = connection.execute(query, (fingerprint,)).fetchone()[0]
    return found


def output_bytes(connection: sqlite3.Connection, fingerprint: str) -> list[float]:
    """What a prompt of the newest 20 runs of this workflow left, in bytes."""
    rows = connection.execute(
        "SELECT 1.0 * bytes / prompts FROM (SELECT costs.created_at, run_id, max(1, prompts) AS prompts,"
        " CASE WHEN json_valid(result) THEN (SELECT sum(json_extract(value, '$.size_bytes'))"
        " FROM json_each(result, '$.outputs')) END AS bytes FROM costs JOIN runs ON runs.id = run_id"
        " WHERE fingerprint = ? AND fingerprint <> '' AND costs.status = 'succeeded'"
        " ORDER BY costs.created_at DESC, run_id DESC LIMIT ?) WHERE bytes > 0",
        (fingerprint, SAMPLES),
    ).fetchall()
    return [row[0] for row in rows]


def step_times(connection: sqlite3.Connection) -> list[tuple[dict[str, Any], str, float]]:
    """Config, GPU and seconds a step of the newest 50 trainings on Modal that came far enough to tell."""
    rows = connection.execute(
        "SELECT config, gpu, step_s FROM (SELECT costs.created_at, run_id, gpu_billed AS gpu,"
        " CASE WHEN json_valid(request) THEN json_extract(request, '$.job.config') END AS config,"
        " CASE WHEN json_valid(result) AND json_extract(result, '$.result.step') >= ?"
        " THEN json_extract(result, '$.result.seconds_per_step') END AS step_s"
        " FROM costs JOIN runs ON runs.id = run_id WHERE costs.kind = 'train' AND gpu_billed <> '')"
        " WHERE config IS NOT NULL AND typeof(step_s) IN ('real', 'integer') AND step_s > 0"
        " ORDER BY created_at DESC, run_id DESC LIMIT 50",
        (STEPS_THAT_TELL,),
    ).fetchall()
    return [(json.loads(config), gpu, float(step_s)) for config, gpu, step_s in rows]


def copy_speeds(connection: sqlite3.Connection, title: str, target: str) -> list[float]:
    """Bytes per second of the newest 20 syncs of this title there, the newest first.

    Of those that copied for a second or more: the others tell more of the start than of the speed.
    """
    rows = connection.execute(
        "SELECT json_extract(result, '$.copied_bytes') / json_extract(result, '$.rclone_s') FROM runs"
        " WHERE kind = 'sync' AND title = ? AND target = ? AND CASE WHEN json_valid(result)"
        " THEN json_extract(result, '$.rclone_s') >= 1.0 AND json_extract(result, '$.copied_bytes') > 0 ELSE 0 END"
        " ORDER BY created_at DESC, id DESC LIMIT ?",
        (title, target, SAMPLES),
    ).fetchall()
    return [row[0] for row in rows]
