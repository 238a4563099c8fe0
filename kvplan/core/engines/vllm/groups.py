"""How vLLM deals layers into groups that share one pool of equal blocks.

Source: vLLM 0.33, v1/core/kv_cache_planning.py `get_kv_cache_groups` and what it calls
"""

from dataclasses import dataclass, replace

from kvplan.core.engines.vllm.pages import Spec, padded
from kvplan.core.engines.vllm.rules import Rules
from kvplan.core.errors import UnsupportedError
from kvplan.core.units import ceil_div

_EVERY_TOKEN = ("full", "full_indexed", "latent", "latent_indexed", "indexer", "compressed")
Layers = list[tuple[int, Spec]]
"""(layer of the model, its cache), in the model's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Layers whose blocks a request takes together."""

    layers: tuple[tuple[int, Spec], ...]

    @property
    def first(self) -> Spec:
        """What stands for all of them where blocks are counted: they have the same tokens in a block."""
        return self.layers[0][1]

    def page_bytes(self, start: int = 0, stop: int | None = None) -> int:
        """One block of the group's layers from `start` to before `stop`."""
        return sum(spec.page_bytes for layer, spec in self.layers if layer >= start and (stop is None or layer < stop))


def groups_of(layers: Layers, rules: Rules, *, hybrid: bool) -> list[Group]:
    """The groups of the whole model.

        all equal, or of one kind with one block size     one group
        else                                              pages of one size, then groups of g layers each,
                                                          g = the fewest of a kind, or the most where that is near

    With `hybrid` off, layers with windows beside full ones count as full; a model of windows alone keeps them.
    Raises UnsupportedError where pages cannot be made equal.
    """
    if not layers:
        return []
    if not (hybrid and rules.hybrid_groups):
        layers = _promoted(layers)
    if _uniform([spec for _, spec in layers]):
        return [Group(layers=tuple(layers))]
    if rules.hybrid_groups:
        return _equal_pages(layers, rules)
    return [Group(layers=tuple(layers))]


def bytes_per_block(groups: list[Group], start: int = 0, stop: int | None = None) -> int:
    """The widest group's page on one pipeline stage: groups lie over one another, narrower ones waste the rest."""
    return max((group.page_bytes(start, stop) for group in groups), default=0)


def _uniform(specs: list[Spec]) -> bool:
    """Whether all need the same blocks: all attend to all tokens, or all to one window, or all keep one state."""
    first = specs[0]
    if any(spec.block_size != first.block_size or need(spec) != need(first) for spec in specs):
        return False
    return not first.recurrent or len({spec.page_bytes for spec in specs}) == 1


def need(spec: Spec) -> tuple[object, ...]:
    """What two layers must have in common, besides the length of a block, to need the same blocks."""
    if spec.recurrent:
        return ("state", spec.checkpoints)
    kind = "full" if spec.kind in _EVERY_TOKEN else spec.kind
    return (kind, spec.window)


def _promoted(layers: Layers) -> Layers:
    """Windows beside full attention are charged for all tokens, in the full layers' blocks."""
    if _uniform([spec for _, spec in layers]):
        return layers
    full = [spec for _, spec in layers if need(spec)[0] == "full"]
    if not full:
        return layers
    return [
        (i, replace(spec, kind="full", window=None, block_size=full[0].block_size) if spec.window else spec)
        for i, spec in layers
    ]


def _equal_pages(layers: Layers, rules: Rules) -> list[Group]:
    """Groups of equal width over pages of equal size; the last ones of a kind may have fewer layers."""
    layers = _one_page_size(layers)
    kinds: dict[Spec, Layers] = {}
    for layer, spec in layers:
        kinds.setdefault(spec, []).append((layer, spec))
    counts = [len(members) for members in kinds.values()]
    width, (over, under) = min(counts), rules.widen
    if max(counts) * under < width * over:
        width = max(counts)
    groups = []
    for members in kinds.values():
        count = ceil_div(len(members), width)
        # Every count-th layer, not slices, so that each pipeline stage has its share of every group.
        groups += [Group(layers=tuple(members[i::count])) for i in range(count)]
    return groups


def _one_page_size(layers: Layers) -> Layers:
    """All pages as large as the largest: by longer blocks where sizes divide, else padded.

    Rows of latents cannot be padded to a foreign size; then everything is kept in one group as if for all tokens.
    """
    largest = max(spec.page_bytes for _, spec in layers)
    if any(spec.is_latent and largest % spec.page_bytes for _, spec in layers):
        raise UnsupportedError(
            "vLLM cannot give this model's layers pages of one size",
            hint="another `--block-size`, or a KV cache in the model's dtype",
        )
    return [(layer, _grown(spec, largest)) for layer, spec in layers]


def _grown(spec: Spec, page_bytes: int) -> Spec:
    if spec.page_bytes == page_bytes:
        return spec
    if spec.recurrent or page_bytes % spec.page_bytes:
        return padded(spec, page_bytes)
    if spec.padded_bytes is not None:
        raise UnsupportedError(
            "vLLM stops at its own assertion: sliding layers padded to one page, full ones in the model's dtype larger",
            hint="keep no full layer of this model in the model's dtype",
        )
    return replace(spec, block_size=spec.block_size * (page_bytes // spec.page_bytes))
