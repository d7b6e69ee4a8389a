"""Import everything once in the finished environment, and work around torch companions that do not match torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from comfymodal.comfyui.boot import TORCHVISION_OPS
from comfymodal.comfyui.install.pip import Meter, run_python
from comfymodal.comfyui.install.steps import Site
from comfymodal.errors import ServiceError

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Probe:
    """What the finished environment can do."""

    device: str
    torch: str
    shims: tuple[str, ...]
    failures: dict[str, str] = field(default_factory=dict)


def settle_probe(site: Site) -> Probe:
    """Import everything in the engine's Python, work around torchvision and torchaudio builds that do not match.

    Chosen by what happens, never by platform. Then the recipe has the last word.
    Raises `ServiceError` naming what still cannot be imported.
    """
    meter = site.meter("probe", "checking that everything imports")
    probe = _probe(site, meter, ())
    shims = (TORCHVISION_OPS,) if "torchvision::nms" in probe.failures.get("torchvision", "") else ()
    trimmed = "torchaudio" in probe.failures and _drop_native_torchaudio(site)
    if shims or trimmed:
        probe = _probe(site, meter, shims)
    if probe.failures:
        first, reason = next(iter(probe.failures.items()))
        raise ServiceError(
            f"the engine was installed, but {first} cannot be imported: {reason.splitlines()[0][:300]}",
            hint="comfymodal engine remove --all takes what is unfinished; then try again, or another version",
            log=[f"{name}: {text}"[:1000] for name, text in probe.failures.items()],
        )
    site.recipe.check(site, probe.shims)
    return probe


def _probe(site: Site, meter: Meter, shims: tuple[str, ...]) -> Probe:
    flags = [part for name in shims for part in ("--shim", name)]
    finished = run_python(
        [site.python, _HERE.parent / "boot.py", *flags, _HERE / "probe_script.py", *site.recipe.imports(site)],
        scratch=site.scratch,
        on_tick=meter.tick,
    )
    try:
        found = json.loads(finished.lines[-1])
        return Probe(device=found["device"], torch=found["torch"], shims=shims, failures=found["failures"])
    except (IndexError, KeyError, TypeError, ValueError) as exc:
        raise ServiceError(
            f"the engine's Python ended with code {finished.code} while importing its packages",
            hint="comfymodal engine remove --all takes what is unfinished; then try again, or another version",
            log=list(finished.lines[-12:]),
        ) from exc


def _drop_native_torchaudio(site: Site) -> bool:
    """Remove the compiled part of torchaudio: absent it is skipped, built for another torch it stops the import."""
    compiled = (".so", ".pyd", ".dylib")
    libraries = [path for path in (site.site_packages / "torchaudio/lib").glob("*") if path.suffix in compiled]
    for library in libraries:
        library.unlink()
    return bool(libraries)
