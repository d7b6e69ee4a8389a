"""What Modal asks for a container: tables of prices, ours of the list or a workspace's own, and money as nanodollars.

Standard library only: flags, the project file and tables use it. Our table is a copy of a page, not a promise; what is
computed from a table is an estimate and says its date. Left out: credits, egress, storage.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal, InvalidOperation
from types import MappingProxyType
from typing import Literal, overload

from comfymodal.errors import NotReadyError

AS_OF = "2026-10-07"
"""When the prices were read at modal.com/pricing."""

CPU_NANODOLLARS_PER_CORE_S = 13_100
MEMORY_NANODOLLARS_PER_GIB_S = 2_220
STORAGE_NANODOLLARS_PER_GIB_MONTH = 90_000_000
"""Of volumes, the first TiB of a workspace being free."""
EGRESS_NANODOLLARS_PER_GIB = 40_000_000
"""Of what leaves Modal beyond the plan's allowance. No answer of Modal's API has named it so far."""

REGIONS_AS_OF = "2026-10-07"
BROAD_REGIONS = ("us", "eu", "ap")
BROAD_REGION, NARROW_REGION = Decimal("1.15"), Decimal("1.75")
"""A function that may run only in some region costs so many times more: GPU, cores and memory. No API tells this."""

# CPU and memory are billed by the larger of request and use. ComfyUI keeps model weights in memory beside the GPU.
GPU_CONTAINER_CORES, GPU_CONTAINER_GIB = 4, 32
# A plain function asks for 0.125 core and 128 MiB, and uses more.
CPU_CONTAINER_CORES, CPU_CONTAINER_GIB = 1, 1
# What the containers of a sync ask for.
SYNC_CONTAINER_CORES, SYNC_CONTAINER_GIB = 2, 4

_NANO = 10**9


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card as Modal sells it. `most` is how many one container may have."""

    name: str
    nanodollars_per_s: int
    vram_gb: int
    most: int


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("T4", 164_000, 16, 8),
        Gpu("L4", 222_000, 24, 8),
        Gpu("A10", 306_000, 24, 4),
        Gpu("L40S", 542_000, 48, 8),
        Gpu("A100-40GB", 583_000, 40, 8),
        Gpu("A100-80GB", 694_000, 80, 8),
        # Modal's pages do not say how many of these one container may have.
        Gpu("RTX-PRO-6000", 842_000, 96, 8),
        Gpu("H100", 1_097_000, 80, 8),
        Gpu("H200", 1_261_000, 141, 8),
        Gpu("B200", 1_736_000, 192, 8),
        Gpu("B300", 1_972_000, 288, 8),
    )
}

_RENAMED = {"A10G": "A10"}

_VARIANTS = {"A100": "A100-40GB", "H100!": "H100", "B200+": "B200"}
"""Names that differ in which card may stand in, at the same price: A100 may be one of 80 GB, H100! is no H200."""


@dataclass(frozen=True, slots=True)
class GpuChoice:
    """What a container asks for. `name` and `label` are as Modal takes them: `A100-80GB`, `H100!`, `H100:2`."""

    name: str
    count: int
    label: str

    @property
    def card(self) -> Gpu:
        """The row of the table that prices it."""
        return GPUS[_VARIANTS.get(self.name, self.name)]


Source = Literal["list", "workspace"]


@dataclass(frozen=True, slots=True)
class RateTable:
    """What is asked for each part of a container, before credits: nanodollars per second. None, or no entry: unknown.

    `source` is our dated copy of the price list, or what the workspace itself was told on that day.
    """

    gpus: Mapping[str, int]
    """By the names of `GPUS`, and what of later cards has come since this release."""
    core: int | None
    gib: int | None
    as_of: str
    source: Source = "list"
    storage_per_gib_month: int | None = None
    region: str | None = None
    """Where containers may run only; None for anywhere, at no more than the price."""

    @property
    def multiplier(self) -> Decimal:
        """How many times more the region costs."""
        return region_multiplier(self.region)

    def in_region(self, region: str | None) -> RateTable:
        """The same prices for containers that may run only there."""
        return replace(self, region=region)

    def gpu_price(self, choice: GpuChoice) -> int:
        """Nanodollars per second. Raises `NotReadyError` when nobody told this GPU's price: it is not nothing."""
        price = self.gpus.get(choice.card.name)
        if price is None:
            raise self._unknown(f"{choice.card.name} costs")
        return self._here(price * choice.count)

    def other_price(self, cores: int, gib: int) -> int:
        """Nanodollars per second of so many cores and so much memory. Raises `NotReadyError` as `gpu_price`."""
        if self.core is None or self.gib is None:
            raise self._unknown("cores and memory cost")
        return self._here(cores * self.core + gib * self.gib)

    def _here(self, price: int) -> int:
        return int((price * self.multiplier).to_integral_value(ROUND_HALF_UP))

    def _unknown(self, what: str) -> NotReadyError:
        return NotReadyError(
            f"what {what} is unknown: Modal's answer of {self.as_of} does not say",
            hint="ask Modal again: comfymodal costs rates --refresh",
        )


LIST = RateTable(
    MappingProxyType({gpu.name: gpu.nanodollars_per_s for gpu in GPUS.values()}),
    CPU_NANODOLLARS_PER_CORE_S,
    MEMORY_NANODOLLARS_PER_GIB_S,
    AS_OF,
    storage_per_gib_month=STORAGE_NANODOLLARS_PER_GIB_MONTH,
)
"""Our copy of modal.com/pricing."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a container costs while it lives. `gpu` is the priced choice's label, empty without a GPU."""

    gpu_nanodollars_per_s: int
    other_nanodollars_per_s: int
    as_of: str = AS_OF
    gpu: str = ""
    source: Source = "list"
    is_range: bool = False
    """There were cheaper choices in the list: this is the most it can be."""

    @property
    def nanodollars_per_s(self) -> int:
        return self.gpu_nanodollars_per_s + self.other_nanodollars_per_s

    @property
    def nanodollars_per_h(self) -> int:
        return self.nanodollars_per_s * 3600

    def cost(self, seconds: float) -> int:
        """Nanodollars for so many seconds."""
        return cost_of_seconds(self.nanodollars_per_s, seconds)

    def to_dict(self) -> dict[str, str | int]:
        """As the ledger keeps it: a later table must not rewrite what a run cost."""
        total = self.nanodollars_per_s
        return {"gpu": self.gpu, "nanodollars_per_s": total, "as_of": self.as_of, "source": self.source}


def cost_of_seconds(nanodollars_per_s: int, seconds: float) -> int:
    """Nanodollars, counted in milliseconds; rounded up, as a bound must be."""
    return -(-nanodollars_per_s * round(seconds * 1000) // 1000)


def parse_gpu(text: str) -> GpuChoice:
    """Read `l40s`, `H100:2` or `A100-80GB` as Modal would. Raises ValueError with words and near names."""
    wanted, colon, number = text.strip().partition(":")
    name = _RENAMED.get(wanted.upper(), wanted.upper())
    if name not in GPUS and name not in _VARIANTS:
        raise ValueError(_unknown(wanted))
    if colon and not re.fullmatch(r"[0-9]{1,4}", number):
        raise ValueError(f"{text} does not say how many: write {name}:2 for two in one container")
    count = int(number) if colon else 1
    choice = GpuChoice(name, count, name if count == 1 else f"{name}:{count}")
    if count < 1:
        raise ValueError(f"{text} asks for no GPU; a container takes 1 to {choice.card.most} {name}")
    if count > choice.card.most:
        raise ValueError(f"{text} is more than one container takes: at most {name}:{choice.card.most}")
    return choice


def region_multiplier(region: str | None) -> Decimal:
    """How many times more a container costs that may run only there.

    Every name but the few broad ones counts as narrow, the dearer: which names there are is Modal's to say.
    """
    if region is None:
        return Decimal(1)
    return BROAD_REGION if region in BROAD_REGIONS else NARROW_REGION


def container_rate(gpus: Sequence[GpuChoice], table: RateTable = LIST) -> Rate:
    """The rate of a render container. Of several choices the dearest counts: which one will be free is not known.

    Raises `NotReadyError` when the table has no price for one of them.
    """
    if not gpus:
        raise ValueError("no GPU to price")
    prices = [table.gpu_price(gpu) for gpu in gpus]
    dearest = gpus[prices.index(max(prices))]
    found = _rate(table, max(prices), GPU_CONTAINER_CORES, GPU_CONTAINER_GIB)
    return replace(found, gpu=dearest.label, is_range=min(prices) < max(prices))


def training_rate(gpu: GpuChoice, memory_gib: int, table: RateTable = LIST) -> Rate:
    """The rate of a container that trains: weights pass through main memory before they are quantized.

    Raises `NotReadyError` when the table has no price for it.
    """
    found = _rate(table, table.gpu_price(gpu), GPU_CONTAINER_CORES, max(GPU_CONTAINER_GIB, memory_gib))
    return replace(found, gpu=gpu.label)


def cpu_rate(table: RateTable = LIST) -> Rate:
    """The rate of a container without a GPU."""
    return _rate(table, 0, CPU_CONTAINER_CORES, CPU_CONTAINER_GIB)


def sync_rate(table: RateTable = LIST) -> Rate:
    """The rate of a container that moves files."""
    return _rate(table, 0, SYNC_CONTAINER_CORES, SYNC_CONTAINER_GIB)


def dollars(nanodollars: int) -> Decimal:
    return Decimal(nanodollars) / _NANO


def nanodollars_of(amount: Decimal) -> int:
    """Parts of a nanodollar are dropped: a limit is never raised by rounding."""
    return int((amount * _NANO).to_integral_value(ROUND_DOWN))


def parse_money(text: str) -> int:
    """Read `$2.50` or `2.5` (dollars) as nanodollars. Raises ValueError below zero and from a million on."""
    try:
        amount = Decimal(text.strip().removeprefix("$").strip())
    except InvalidOperation:
        amount = Decimal("NaN")
    # NaN and infinity compare with nothing here; an exponent of thousands would compute for ever.
    if not amount.is_finite() or not 0 <= amount < 1_000_000:
        raise ValueError(f"{text!r} is no amount of dollars: write 2.50 or $2.50")
    return nanodollars_of(amount)


@overload
def money_json(nanodollars: int) -> str: ...
@overload
def money_json(nanodollars: int | None) -> str | None: ...
def money_json(nanodollars: int | None) -> str | None:
    """Dollars as JSON carries them: `0.08717264`, every digit, no exponent; what is not known stays so."""
    return None if nanodollars is None else f"{dollars(nanodollars):f}"


def money_text(nanodollars: int) -> str:
    """Dollars for people: `$0.0152` below one dollar, `$12.40` above, `<$0.0001` for what would read as nothing."""
    if nanodollars < 0:
        return f"-{money_text(-nanodollars)}"
    if nanodollars == 0:
        return "$0.00"
    fine = dollars(nanodollars).quantize(Decimal("0.0001"), ROUND_HALF_UP)
    if nanodollars < _NANO // 10_000:
        return "<$0.0001"
    return f"${fine}" if fine < 1 else f"${dollars(nanodollars).quantize(Decimal('0.01'), ROUND_HALF_UP)}"


def hourly_text(rate: Rate) -> str:
    """`$2.40/h`; `up to $4.39/h` when a cheaper choice may be taken."""
    return f"{'up to ' if rate.is_range else ''}{money_text(rate.nanodollars_per_h)}/h"


def _rate(table: RateTable, gpu_price: int, cores: int, gib: int) -> Rate:
    return Rate(gpu_price, table.other_price(cores, gib), as_of=table.as_of, source=table.source)


def _unknown(wanted: str) -> str:
    wanted = wanted[:40]
    near = _near(wanted.upper(), [*GPUS, *_VARIANTS])
    if near:
        return f"{wanted} is not a GPU of Modal; did you mean {near}?"
    return f"{wanted or 'an empty name'} is not a GPU of Modal; it has {', '.join(GPUS)}"


def _near(wanted: str, names: Iterable[str]) -> str | None:
    # Letters and digits only: `A100 80GB`, `rtx_pro_6000`. A maker's name in front says nothing.
    plain = {re.sub(r"[^A-Z0-9]", "", name): name for name in sorted(names, key=len, reverse=True)}
    bare = re.sub(r"[^A-Z0-9]", "", wanted.removeprefix("NVIDIA"))
    if bare in plain:
        return plain[bare]
    longer = [name for key, name in plain.items() if bare and key.startswith(bare)]
    if longer:
        return min(longer, key=len)
    # `H100-SXM5` looks more like others than like H100.
    first = re.split(r"[^A-Z0-9]", wanted)[0]
    if first in plain:
        return plain[first]
    close = difflib.get_close_matches(bare, plain, n=1, cutoff=0.7)
    return plain[close[0]] if close else None
