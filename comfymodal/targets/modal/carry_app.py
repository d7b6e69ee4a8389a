"""Apps with one function that runs whatever job a call brings: no GPU, no volume and no secret until one asks for them.

Deployed once; a call brings what its job needs along, so that no change of the project file deploys it again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import modal
import modal.exception

from comfymodal.errors import CancelledError
from comfymodal.targets.base import OnEvent, Setup
from comfymodal.targets.modal.build_log import told
from comfymodal.targets.modal.errors import translated
from comfymodal.targets.modal.names import FINGERPRINT_TAG, MOUNT_ROOT, app_name, app_tags
from comfymodal.targets.spec import ModalSpec


@dataclass(frozen=True, slots=True)
class CarryApp:
    """`body` is what its containers run, as the function of this name with these options.

    `why` says what the app is for, `undone` what has not happened when a deploy is interrupted; both for the operator.
    """

    spec: ModalSpec
    kind: str
    fingerprint: str
    function: str
    body: Callable[..., Any]
    options: Mapping[str, Any]
    make_image: Callable[[], modal.Image]
    why: str
    details: tuple[str, ...]
    undone: str
    build_hint: str | None = None

    @property
    def name(self) -> str:
        return app_name(self.spec.project, self.kind)

    def build(self) -> modal.App:
        """Describe what is deployed; asks nobody. It gets its fingerprint in the same step in which it goes live."""
        tags = {**app_tags(self.spec.project, self.kind), FINGERPRINT_TAG: self.fingerprint}
        app = modal.App(self.name, tags=tags, include_source=False)
        app.function(image=self.make_image(), name=self.function, **self.options)(self.body)
        return app

    def live_fingerprint(self) -> str | None:
        """Of what is deployed, empty when it has none; None when nothing is. Raises `ComfymodalError`."""
        with translated(f"cannot look up the app {self.name}"):
            try:
                tags = modal.App.lookup(self.name, environment_name=self.spec.environment).get_tags()
            except modal.exception.NotFoundError:
                return None
        return tags.get(FINGERPRINT_TAG, "")

    def describe_deploy(self) -> Setup | None:
        """What `deploy` would do; None when what is live is what it would make. Raises `ComfymodalError`."""
        live = self.live_fingerprint()
        if live == self.fingerprint:
            return None
        return Setup(
            summary=f"{self.why}, which is not deployed yet; deploy {self.name}"
            if live is None
            else f"{self.name} is not as this project and this release of comfymodal have it; deploy it again",
            details=self.details,
            ask="Deploy it?",
            declined_hint="add --yes to agree beforehand",
            forbidden_hint="add --yes to agree to it",
        )

    def deploy(self, on_event: OnEvent) -> None:
        """Build and publish the app. Raises `ComfymodalError`."""
        on_event({"type": "phase", "phase": "deploy"})
        app = self.build()
        try:
            with translated(f"cannot deploy {self.name}", build_hint=self.build_hint), told(on_event):
                app.deploy(environment_name=self.spec.environment)
        except KeyboardInterrupt:
            raise CancelledError(
                f"interrupted while deploying {self.name}: {self.undone}", hint="run the same command again"
            ) from None
        on_event({"type": "deployed", "app": self.name, "app_id": app.app_id})

    def handle(self, roles: Collection[str], secrets: Collection[str], **options: Any) -> Any:
        """The deployed function in a container with these volumes (by role), secrets and options."""
        spec = self.spec
        found = modal.Function.from_name(self.name, self.function, environment_name=spec.environment)
        return found.with_options(
            volumes={
                f"{MOUNT_ROOT}/{role}": modal.Volume.from_name(
                    spec.volumes[role].name, environment_name=spec.environment
                )
                for role in sorted(roles)
            },
            secrets=[modal.Secret.from_name(name, environment_name=spec.environment) for name in sorted(secrets)],
            **options,
        )
