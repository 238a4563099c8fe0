"""An engine's account of a GPU and what it makes of the rest, as tables of several pages."""

from kvplan.core.engines.pool import Budget, KVPool
from kvplan.core.measured import Measured
from kvplan.core.serving import Serving
from kvplan.core.text import printable
from kvplan.core.units import GIB, format_bytes
from kvplan.report.page import Line, Table, gib, percent, plural

_PRINTS = {
    "vllm": (
        '"GPU KV cache size: {tokens:,} tokens"', '"Maximum concurrency for {length:,} tokens per request: {x:.2f}x"'
    ),
    "sglang": ('"max_total_num_tokens={tokens}"', ""),
    "trtllm": ('"max tokens in paged KV cache ({tokens})"', ""),
    "llamacpp": ('"n_ctx = {tokens}"', ""),
}  # fmt: skip
"""What the engines' logs say of the same figures: of tokens, of requests."""


def engine_name(serving: Serving) -> str:
    """`vllm 0.33`."""
    engine = serving.engine
    return f"{engine.name} {engine.version}" if engine.version else engine.name


def engine_tables(serving: Serving, accounts: tuple[Budget, ...], pool: KVPool | None) -> list[Table]:
    """The account of the tightest stage, and the pool that it leaves."""
    tables = [] if not accounts else [_account(serving, accounts)]
    return tables if pool is None else [*tables, _pool(pool), *_groups(pool)]


def _account(serving: Serving, accounts: tuple[Budget, ...]) -> Table:
    account = min(accounts, key=lambda found: found.kv_memory_bytes)
    share = percent(account.usable_bytes, account.device_bytes)
    rows = [("device", gib(account.device_bytes), "", "", "as frameworks see it")]
    if account.usable_bytes != account.device_bytes:
        rows.append(("usable", gib(account.usable_bytes), "", "", f"{share} of the device"))
    rows += [_item(item) for item in account.taken]
    spread = gib(account.spread_bytes) if account.spread_bytes else ""
    rows.append(("left for the cache", _signed(account.kv_memory_bytes), spread, "", ""))
    rows += [(*_item(item)[:4], "outside the share") for item in account.untaken]
    return Table(
        title=_title(serving, accounts, account),
        header=("", "GiB", "±", "basis", ""),
        align="lrrll",
        rows=tuple(rows),
    )


def _title(serving: Serving, accounts: tuple[Budget, ...], account: Budget) -> str:
    whose = "the GPU" if serving.num_gpus == 1 else "each GPU"
    if len({found.kv_memory_bytes for found in accounts}) > 1:
        whose = f"a GPU of stage {account.stage}, the tightest of {len(accounts)}"
    return f"{engine_name(serving)}'s account of {whose}"


def _item(item: Measured) -> tuple[str, str, str, str, str]:
    spread = gib(item.spread_bytes) if item.spread_bytes else ""
    return printable(item.name), gib(item.num_bytes), spread, item.basis, ""


def _signed(num_bytes: int) -> str:
    return gib(num_bytes) if num_bytes >= 0 else f"{min(num_bytes / GIB, -0.01):,.2f}"


def _pool(pool: KVPool) -> Table:
    tokens, requests = (
        text.format(tokens=pool.num_tokens, length=pool.max_model_len, x=pool.max_concurrency)
        for text in _PRINTS.get(pool.engine, ("", ""))
    )
    each = pool.blocks_per_request * pool.bytes_per_block
    block = f"of {plural(pool.block_size, 'token')}, {format_bytes(pool.bytes_per_block)} each"
    one = f"{plural(pool.blocks_per_request, 'block')}, {format_bytes(each)}"
    rows = [
        ("blocks", f"{pool.num_blocks:,}", block),
        ("tokens", f"{pool.num_tokens:,}", f"the log: {tokens}" if tokens else ""),
        ("requests", f"{pool.max_concurrency:,.2f}", f"the log: {requests}" if requests else "at once"),
        ("of one", f"{pool.max_model_len:,}", f"tokens: {one}"),
    ]
    after = tuple(Line(printable(note, max_length=400), "faint") for note in pool.notes)
    return Table(title="Its pool", header=("", "", ""), align="lrl", rows=tuple(rows), after=after)


def _groups(pool: KVPool) -> list[Table]:
    """One row a group of layers, where there is more than one."""
    if len(pool.groups) < 2:
        return []
    rows = tuple(
        (
            f"{group.num_layers} × {group.kind}" + (f" (window {group.window:,})" if group.window else ""),
            f"{group.block_size:,}",
            format_bytes(group.page_bytes),
            f"{group.blocks_per_request:,}",
            f"{group.padding_layers}" if group.padding_layers else "",
        )
        for group in pool.groups
    )
    header = ("group", "tokens/block", "layer's page", "blocks/request", "padding layers")
    return [Table(title="Its groups of layers", header=header, align="lrrrr", rows=rows)]
