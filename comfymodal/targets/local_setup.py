"""What an engine install is, in the operator's words, before it is agreed to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfymodal.targets.base import Setup

if TYPE_CHECKING:
    from comfymodal.comfyui.install.plan import InstallPlan


def describe_install(plan: InstallPlan, summary: str) -> Setup:
    """Everything that speaks for and against it: licence, origin, device, bytes, place."""
    source = (
        (
            f"source     {plan.repository}, tag {plan.tag} (commit {(plan.commit or '')[:8]})",
            "packages   what its requirements.txt and your package index give today; not locked by hash",
        )
        if plan.source == "git"
        else ()
    )
    return Setup(
        summary=summary,
        details=(
            f"licence    {plan.licence}",
            *source,
            f"device     {'CPU' if plan.torch_build == 'cpu' else plan.torch_build.upper()} (PyTorch)",
            f"download   about {plan.download_bytes / 1e9:.1f} GB, once",
            f"disk       about {plan.disk_bytes / 1e9:.1f} GB in {plan.folder}",
            "private    its own Python environment; nothing else on this machine changes",
        ),
        ask="Install it?",
        declined_hint="use a ComfyUI you have: --comfy-url http://..., or comfyui.path in comfymodal.yaml",
        forbidden_hint="comfymodal engine install",
    )
