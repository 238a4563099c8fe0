"""Groups of layers whose pages differ, packed side by side into one block: DeepSeek-V4.

A block holds the pages of all layers of one group; groups lie over one another. What changed between releases:

    0.20    windows' pages padded to those of entries; a block has every page size as often as any group has one of them
    0.23    a block has each page size as often as the group with most of it
    0.27    no padding: a block is as wide as the widest group
    0.29    any layers with blocks of one length and one need share a bucket, in the model's order

Source: vLLM 0.33, v1/core/kv_cache_planning.py `_get_packed_kv_cache_groups`, `_get_kv_cache_bytes_per_block`; before
0.29 v1/core/kv_cache_utils.py `_get_kv_cache_groups_uniform_groups`, `_pool_bytes_per_block`,
`get_max_concurrency_for_kv_cache_config`
"""

from collections import Counter
from collections.abc import Iterable

from kvplan.core.engines.vllm.groups import Group, Layers, need
from kvplan.core.engines.vllm.pages import padded
from kvplan.core.units import ceil_div

_SLOTS_SINCE, _UNPADDED_SINCE, _BUCKETS_SINCE = (0, 23), (0, 27), (0, 29)


def is_packed(layers: Layers) -> bool:
    """Whether some layer keeps entries, whose pages no other layer's match."""
    return any(spec.kind == "compressed" for _, spec in layers)


def packed_groups(layers: Layers, release: tuple[int, ...]) -> list[Group]:
    """Buckets of layers that need the same blocks, cut into groups of about equally many repeats of a pattern.

    A repeat is one layer of each page size. Groups have as many as pad least, at least those of a bucket that must
    stay whole: from 0.29 on one of several page sizes in equal numbers, before the one of entries.
    """
    if release < _BUCKETS_SINCE:
        return _around_entries(layers, is_padded=release < _UNPADDED_SINCE)
    buckets = _buckets(layers)
    balanced = [bucket for bucket in buckets if _is_balanced(bucket)]
    least = max((_repeats(bucket) for bucket in balanced if len(_by_page(bucket)) > 1), default=0)
    each = _repeats_of_a_group([_repeats(bucket) for bucket in balanced], least) if least else 0
    groups = []
    for bucket in buckets:
        groups += _cut(bucket, ceil_div(_repeats(bucket), each) if each and _is_balanced(bucket) else 1)
    return groups


def block_bytes(groups: list[Group], release: tuple[int, ...], start: int = 0, stop: int | None = None) -> int:
    """One block on the stage of layers from `start` to before `stop`; from 0.27 on the widest group's pages."""
    pages = _pages(groups, start, stop)
    if release >= _UNPADDED_SINCE:
        return max(sum(each) for each in pages)
    if release < _SLOTS_SINCE:
        return _tuple_bytes(pages)
    most: Counter[int] = Counter()
    for each in pages:
        most |= Counter(each)
    return sum(page * count for page, count in most.items())


def checked_bytes(groups: list[Group], release: tuple[int, ...], start: int = 0, stop: int | None = None) -> int:
    """What the start-up check charges for a block; before 0.29 each page size of entries once in every repeat."""
    if release >= _BUCKETS_SINCE:
        return block_bytes(groups, release, start, stop)
    return _tuple_bytes(_pages(groups, start, stop))


def printed_blocks(groups: list[Group], blocks: list[int], release: tuple[int, ...], stop: int | None = None) -> int:
    """Blocks of a request as the log counts them, by those of each group; before 0.27 weighted with its width.

    ⌈Σ blocks · bytes of the group's pages / bytes of the first group's⌉      of the first stage
    """
    if release >= _UNPADDED_SINCE:
        return sum(blocks)
    widths = [sum(each) for each in _pages(groups, 0, stop)]
    return ceil_div(sum(count * width for count, width in zip(blocks, widths, strict=True)), widths[0])


def _buckets(layers: Layers) -> list[Layers]:
    found: dict[object, Layers] = {}
    for layer, spec in layers:
        found.setdefault((spec.block_size, need(spec)), []).append((layer, spec))
    return list(found.values())


def _around_entries(layers: Layers, *, is_padded: bool) -> list[Group]:
    """One group of all entries and keys, and windows in groups of nearly as many repeats."""
    entries = [(layer, spec) for layer, spec in layers if spec.window is None]
    windows = _buckets([(layer, spec) for layer, spec in layers if spec.window is not None])
    counts = [_repeats(entries), *(_repeats(bucket) for bucket in windows)]
    each = _repeats_of_a_group(counts, counts[0])
    if is_padded:
        sizes = _by_page(entries)
        windows = [[(i, padded(spec, _next(sizes, spec.page_bytes))) for i, spec in bucket] for bucket in windows]
    groups = [Group(layers=tuple(entries))]
    for bucket in windows:
        groups += _cut(bucket, ceil_div(_repeats(bucket), each))
    return groups


def _next(sizes: Iterable[int], page_bytes: int) -> int:
    return min(size for size in sizes if size >= page_bytes)


def _cut(bucket: Layers, count: int) -> list[Group]:
    """Every count-th repeat of the bucket's pattern, so that each pipeline stage has its share of every group."""
    if count == 1:
        return [Group(layers=tuple(bucket))]
    repeats = list(zip(*_by_page(bucket).values(), strict=True))
    return [Group(layers=tuple(layer for repeat in repeats[i::count] for layer in repeat)) for i in range(count)]


def _repeats_of_a_group(counts: list[int], least: int) -> int:
    """From `least` on, the number that all counts are rounded up to multiples of with the least padding."""
    return min(range(least, max(counts) + 1), key=lambda each: (sum(-count % each for count in counts), -each))


def _repeats(bucket: Layers) -> int:
    return max(len(layers) for layers in _by_page(bucket).values())


def _is_balanced(bucket: Layers) -> bool:
    return len({len(layers) for layers in _by_page(bucket).values()}) == 1


def _by_page(bucket: Layers) -> dict[int, Layers]:
    found: dict[int, Layers] = {}
    for layer, spec in bucket:
        found.setdefault(spec.page_bytes, []).append((layer, spec))
    return found


def _pages(groups: list[Group], start: int, stop: int | None) -> list[list[int]]:
    """Of each group, the pages of its layers on a stage."""
    return [
        [spec.page_bytes for layer, spec in group.layers if layer >= start and (stop is None or layer < stop)]
        for group in groups
    ]


def _tuple_bytes(pages: list[list[int]]) -> int:
    """Every page size of entries once, as often as any group has one page size."""
    return sum(set(pages[0])) * max((max(Counter(each).values()) for each in pages if each), default=0)
