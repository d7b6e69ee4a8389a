from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from comfymodal.costs.live_rates import MOST_AGE_S, keep, rates_file
from comfymodal.operations.context import Context, open_context
from comfymodal.operations.costs_rates import show_rates
from comfymodal.output.rates_table import rates_table
from comfymodal.output.tables import Rows

TOLD = {"gpu_hour_cost_t4": "0.59", "gpu_hour_cost_l40s": "1.75", "cpu_hour_cost": "0.0473"}


def context(folder: Path, text: str = "") -> Context:
    (folder / "comfymodal.yaml").write_text(f"version: 1\n{text}")
    return open_context(None, environ={"COMFYMODAL_STATE_DIR": str(folder / "state")}, cwd=folder)


def rows_of(asked: Context) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    found = rates_table(show_rates(asked, refresh=False))
    assert found is not None
    titles, rows = found
    return titles, by_name(rows)


def by_name(rows: Rows) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in rows}


def test_our_list_says_that_it_is_ours_and_of_which_day(tmp_path: Path) -> None:
    titles, rows = rows_of(context(tmp_path))
    assert titles == ("", "per hour", "per second", "")
    assert rows["L40S"] == ("$1.95", "$0.0005420", "")
    assert rows["core"] == ("$0.0472", "$0.0000131", "")
    assert rows["storage"] == ("$0.0900 per GiB and month", "", "of volumes; the first TiB of a workspace is free")
    assert rows["region us, eu, ap"] == ("1.15 times", "", "GPU, cores and memory, as of 2026-10-07")
    assert rows["prices"] == ("of our list", "2026-10-07", "Modal was not asked yet: comfymodal costs rates --refresh")
    assert rates_table("anything else") is None


def test_the_workspaces_own_stand_beside_the_list(tmp_path: Path) -> None:
    asked = context(tmp_path, "modal: {workspace: studio, region: us-west}\n")
    keep(rates_file(asked.state, "studio", None), TOLD, workspace="studio")
    titles, rows = rows_of(asked)
    assert titles[-1] == "our list of 2026-10-07"
    # Within what Modal rounds differently by.
    assert rows["T4"] == ("$0.5900", "$0.0001639", "the same")
    assert rows["L40S"] == ("$1.75", "$0.0004861", "-10.3% ($1.95 there)")
    assert rows["H100"] == ("unknown", "", "$3.95 there")
    assert (rows["GiB of memory"][0], rows["storage"][0]) == ("unknown", "unknown per GiB and month")
    assert rows["region any narrower one"][-1].endswith("; this project's: us-west")
    assert rows["prices"][0] == "of workspace studio"


def test_what_is_too_old_or_of_another_workspace_is_said_not_to_count(tmp_path: Path) -> None:
    asked = context(tmp_path, "modal: {workspace: studio}\n")
    path = rates_file(asked.state, "studio", None)
    kept = keep(path, TOLD, workspace="another")
    assert rows_of(asked)[1]["prices"][2].startswith("Modal was asked for another workspace, another: ")
    keep(path, TOLD, workspace="studio", now=kept.fetched_at - MOST_AGE_S)
    told = show_rates(asked, refresh=False)
    assert (told.source, told.workspace, told.told) == ("list", None, {})
    assert told.why_list is not None
    assert told.why_list.endswith(" is too old")
    assert told.gpus == show_rates(replace_state(asked, tmp_path / "empty"), refresh=False).gpus


def replace_state(asked: Context, state: Path) -> Context:
    return replace(asked, state=state)
