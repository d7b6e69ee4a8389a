"""Tables of `deploy`."""

from __future__ import annotations

from typing import Any

from comfymodal.operations.deploy_results import DeployReport
from comfymodal.output.words import count

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def deploy_table(result: Any) -> Table | None:
    if not isinstance(result, DeployReport):
        return None
    rows: list[tuple[str, ...]] = []
    if result.status != "deployed":
        rows += [("change", item.key, f"{item.old} -> {item.new}", item.effect) for item in result.changes]
        rows += [("create", f"volume {name}", "", "") for name in result.volumes_created]
    rows.append(_summary(result))
    return (), rows


def _summary(result: DeployReport) -> tuple[str, ...]:
    what = f"ComfyUI {result.comfyui_version}, {count(result.custom_nodes, 'custom node')}, {result.gpu}"
    cost = f"{result.per_hour} while a container lives"
    if result.status == "deployed":
        return (f"{result.app} is deployed: {what}, {result.classes} node classes; {cost}",)
    if result.status == "unchanged":
        return (f"{result.app} is deployed as comfymodal.yaml says: {what}; {cost}",)
    minutes = f"; the image takes about {result.build_minutes:g} min" if result.build_minutes else ""
    return (f"{result.app} would be deployed: {what}; {cost}{minutes}",)
