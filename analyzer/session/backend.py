"""What a graph is to run on, as a caller asks for it."""

import dataclasses
from collections.abc import Mapping, Sequence

from analyzer.errors import UsageError

OPTIMIZATIONS = ("all", "extended", "basic", "off")
MOST_THREADS = 1024  # the runtime makes as many as it is told, whatever the machine has


@dataclasses.dataclass(frozen=True)
class Backend:
    """An execution provider and how it is to run a graph.

    provider: "auto" for the best that works here, or a name. threads: of the CPU provider, None for the runtime's
    choice. options: the provider's own, by the names that ONNX Runtime gives them. optimizations: of the graph, "all",
    "extended", "basic" or "off". share: the least part of the multiply-adds that the named provider must run, 0..1.
    Raises UsageError where a value cannot be, or options are given without a provider that could have them.
    """

    provider: str = "auto"
    threads: int | None = None
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    optimizations: str = "all"
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"`threads` {self.threads}: must lie in 1..{MOST_THREADS}")
        if self.optimizations not in OPTIMIZATIONS:
            raise UsageError(f"`optimizations` {self.optimizations!r:.60}: must be one of {', '.join(OPTIMIZATIONS)}")
        if not 0 <= self.share <= 1:
            raise UsageError(f"`provider_share` {self.share:g}: must lie in 0..1")
        if self.options and self.provider == "auto":
            raise UsageError("`provider_option` needs the `provider` that it is for; auto could be any")


def parse_options(pairs: Sequence[str]) -> dict[str, str]:
    """["KEY=VALUE", ...] as a dict. Raises UsageError for anything else, and for a key given twice."""
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key.strip() or not equals:
            raise UsageError(f"`provider_option` {pair!r:.80}: expected KEY=VALUE, such as use_tf32=1")
        if key.strip() in options:
            raise UsageError(f"`provider_option` {key.strip()}: given twice")
        options[key.strip()] = value.strip()
    return options
