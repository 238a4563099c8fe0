"""An engine's account and pool as data; the keys are types in `report.engine_schema`."""

from typing import TYPE_CHECKING

from kvplan.core.engines.pool import Budget, KVPool, PoolGroup
from kvplan.core.measured import Measured
from kvplan.core.serving import Serving

if TYPE_CHECKING:
    from kvplan.report import engine_schema as schema


def account_infos(accounts: tuple[Budget, ...]) -> "list[schema.AccountInfo]":
    """One account a stage."""
    return [
        {
            "stage": account.stage,
            "device_bytes": account.device_bytes,
            "usable_bytes": account.usable_bytes,
            "taken": [_item(item) for item in account.taken],
            "untaken": [_item(item) for item in account.untaken],
            "kv_memory_bytes": account.kv_memory_bytes,
            "spread_bytes": account.spread_bytes,
        }
        for account in accounts
    ]


def _item(item: Measured) -> "schema.AccountItem":
    return {
        "name": item.name,
        "bytes": item.num_bytes,
        "spread_bytes": item.spread_bytes,
        "basis": item.basis,
        "source": item.source,
    }


def pool_info(pool: KVPool | None) -> "schema.PoolInfo | None":
    """The pool; None where there is none."""
    if pool is None:
        return None
    return {
        "engine": pool.engine,
        "engine_version": pool.version,
        "kv_memory_bytes": pool.kv_memory_bytes,
        "allocated_bytes": pool.allocated_bytes,
        "block_size": pool.block_size,
        "bytes_per_block": pool.bytes_per_block,
        "num_blocks": pool.num_blocks,
        "num_tokens": pool.num_tokens,
        "max_model_len": pool.max_model_len,
        "max_concurrency": pool.max_concurrency,
        "blocks_per_request": pool.blocks_per_request,
        "fits_one": pool.fits_one,
        "longest_request": pool.longest_request,
        "groups": [_group(group) for group in pool.groups],
        "notes": list(pool.notes),
    }


def _group(group: PoolGroup) -> "schema.PoolGroupInfo":
    return {
        "kind": group.kind,
        "num_layers": group.num_layers,
        "block_size": group.block_size,
        "page_bytes": group.page_bytes,
        "blocks_per_request": group.blocks_per_request,
        "window": group.window,
        "padding_layers": group.padding_layers,
    }


def settings_info(serving: Serving) -> "schema.SettingsInfo":
    """How the engine is started."""
    gpu, switches = serving.gpu, serving.switches
    return {
        "seq_len": serving.seq_len,
        "dtype": serving.dtype.name,
        "kv_dtype": serving.kv_dtype.name,
        "value_dtype": serving.value_dtype.name,
        "quant": serving.quant.method if serving.quant else None,
        "tp": serving.tp,
        "pp": serving.pp,
        "dp": serving.dp,
        "dcp": serving.dcp,
        "pcp": serving.pcp,
        "num_gpus": serving.num_gpus,
        "gpu": gpu.name if gpu else None,
        "gpu_memory_bytes": gpu.memory_bytes if gpu else None,
        "gpu_memory_utilization": serving.gpu_memory_utilization,
        "gpu_memory_utilization_stated": serving.share_stated,
        "engine": serving.engine.name,
        "engine_version": serving.engine.version,
        "options": {name: _as_json(getattr(switches, name)) for name in sorted(switches.given)},
    }


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
