"""`comfymodal deploy`: what changes and what that costs, then publish, then boot once on a CPU."""

from __future__ import annotations

from dataclasses import replace

from comfymodal.costs.rates import money_json
from comfymodal.errors import NotReadyError, ProjectError
from comfymodal.operations.context import Context
from comfymodal.operations.costs_rates import refreshing
from comfymodal.operations.deploy_results import ChangeShown, DeployReport
from comfymodal.operations.desk import Desk


def deploy(context: Context, desk: Desk, *, is_dry_run: bool, is_forced: bool) -> DeployReport:
    """Publish the render containers as the project wants them.

    Raises `ProjectError` for what Modal would refuse, `NotReadyError` after a no and for a deployment that is unsound.
    """
    from comfymodal.targets.modal import deployment
    from comfymodal.targets.modal.deploy_words import describe_deploy, idle_per_month, per_hour
    from comfymodal.targets.modal.limits import notices, refusals
    from comfymodal.targets.modal.names import app_name
    from comfymodal.targets.modal.plan import changes, describe, fingerprint, rebuild_minutes
    from comfymodal.targets.modal.session import connect
    from comfymodal.targets.modal.volumes import Volumes

    spec = context.modal_spec()
    if refused := refusals(spec):
        raise ProjectError(f"Modal would refuse this: {'; '.join(refused)}", hint="correct comfymodal.yaml")
    for notice in (*context.warnings, *notices(spec)):
        desk.warn(notice)
    desk.event({"type": "phase", "phase": "look"})
    connect(spec.workspace)
    volumes = Volumes(spec)
    missing = volumes.missing()
    before = None if "outputs" in missing else deployment.read_deployment(spec)
    described = before.described if before is not None else None
    after = describe(spec)
    is_current = before is not None and before.fingerprint == fingerprint(spec) and not missing
    report = DeployReport(
        app=app_name(spec.project),
        status="unchanged" if is_current else "planned",
        fingerprint=fingerprint(spec),
        changes=tuple(ChangeShown(item.key, item.old, item.new, item.effect) for item in changes(described, after)),
        volumes_created=tuple(spec.volumes[role].name for role in missing),
        build_minutes=rebuild_minutes(described, after),
        gpu=" or ".join(spec.containers.gpus),
        per_hour=per_hour(spec),
        idle_per_month=money_json(idle_per_month(spec)),
        custom_nodes=len(spec.image.custom_nodes),
        comfyui_version=spec.image.comfyui_version,
        classes=None,
    )
    if is_dry_run or (is_current and not is_forced):
        return report
    if not desk.agree(describe_deploy(spec, described, report.volumes_created, is_first=before is None)):
        raise NotReadyError("nothing was deployed", hint="comfymodal deploy --dry-run shows what would change")
    for role in missing:
        volumes.create(role)
    with refreshing(context):
        deployment.deploy(spec, desk.event, is_forced=is_forced)
    nodes = deployment.kept_nodes(spec) or {}
    return replace(report, status="deployed", classes=len(nodes.get("object_info") or ()))
