"""What drafts beside the model in SGLang: its weights, and the pools that it holds keys and values in.

Both models are loaded before the pool is sized, tables and all; the draft's tables that the model has too are let go
of after that. The size of a token counts layers of the draft as if they were the model's (`layers.Stage`); what is then
allocated for them is of their own shape, for every token of the pool.

Source: SGLang 0.5.23, sglang/srt/managers/scheduler.py `init_model_worker`, `init_memory_pools`;
speculative/eagle_worker_v2.py, speculative/standalone_worker_v2.py; mem_cache/kv_cache_configurator.py
`_derive_pool_sizes`, `pool_page_size`
"""

from collections.abc import Iterable
from dataclasses import replace

from kvplan.core.dtypes import BF16, FP16, FP32, DType
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.sglang.layers import attention_tp, is_hybrid_swa, own_entry, stages
from kvplan.core.hardware import Gpu
from kvplan.core.measured import Measured
from kvplan.core.model import ModelSpec, Weight
from kvplan.core.units import ceil_div
from kvplan.core.weights import all_weights, layer_bytes, weight_bytes

_JOINED = {"eagle": 2, "eagle3": 3}
"""Vectors that a head joins where its config is not known."""


def auto_dtype(model: ModelSpec, gpu: Gpu | None) -> DType:
    """16 bits of fp32, bf16 only where the device has it.

    Source: SGLang 0.5.23, configs/model_config.py `_get_and_verify_dtype`, `maybe_downgrade_dtype_for_legacy_gpu`
    """
    own, major = model.dtype or BF16, (gpu.arch if gpu is not None else "").partition(".")[0]
    if major.isdigit() and int(major) < 8:
        return FP16
    return (BF16 if model.model_type.startswith("gemma") else FP16) if own == FP32 else own


def draft_weights(model: ModelSpec, deployment: Deployment) -> Measured | None:
    """What is loaded to draft with, while the pool is sized; None where nothing drafts, or without weights.

        a draft model   all of it, in its own dtype unless the user gives one
        mtp             the checkpoint's layers for it, and a token table and an output head where it stores none
        a head unknown  one layer like the model's last, a matrix of 2 (EAGLE-3: 3) · hidden × hidden, both tables

    Source: SGLang 0.5.23, models/llama_eagle3.py, models/deepseek_nextn.py, models/qwen3_5_mtp.py
    """
    method, draft = deployment.switches.speculative_method, deployment.draft
    if method in (None, "ngram"):
        return None
    if draft is not None:
        dtype = auto_dtype(draft, deployment.gpu) if _is_auto(model, deployment) else deployment.dtype
        stored = model.quantization if model.quantization and model.quantization.planned else draft.quantization
        draft = replace(draft, quantization=stored)
        held = sum(count * _rank_bytes(weight, draft, dtype, deployment) for weight, count in _loaded(draft))
        return Measured(
            name="draft weights", num_bytes=held, spread_bytes=0, source=f"the tensors of `{draft.id}`", basis="derived"
        )
    if method == "mtp" and model.draft is not None:
        loaded = [*model.draft.weights, *_missing_tables(model, model.draft.weights)]
        held = sum(_rank_bytes(weight, model, deployment.dtype, deployment) for weight in loaded)
        source = "the checkpoint's layers for multi-token prediction, and the tables that SGLang loads with them"
        return Measured(name="draft weights", num_bytes=held, spread_bytes=held // 20, source=source, basis="derived")
    return _unknown_head(model, deployment)


def _is_auto(model: ModelSpec, deployment: Deployment) -> bool:
    return deployment.dtype == auto_dtype(model, deployment.gpu)


def _loaded(draft: ModelSpec) -> Iterable[tuple[Weight, int]]:
    """The whole draft; of a checkpoint that stores layers for multi-token prediction, those and its tables."""
    if draft.draft is not None:
        return [(w, 1) for w in (*draft.draft.weights, *_missing_tables(draft, draft.draft.weights))]
    return all_weights(draft)


def _missing_tables(model: ModelSpec, stored: tuple[Weight, ...]) -> list[Weight]:
    """Token table and output head where the layers for multi-token prediction store none: SGLang makes both anyway."""
    parts = {weight.part for weight in stored}
    tables = [] if "embeddings" in parts else [w for w in model.embeddings if w.part == "embeddings"][:1]
    heads = [w for w in model.head if w.part == "head" and model.vocab_size in w.shape]
    return tables + ([] if "head" in parts else heads[:1])


def _rank_bytes(weight: Weight, model: ModelSpec, dtype: DType, deployment: Deployment) -> int:
    tp = attention_tp(deployment) if weight.part == "attention" else deployment.tp
    return weight_bytes(weight, dtype, model.quantization, tp)


def _unknown_head(model: ModelSpec, deployment: Deployment) -> Measured:
    dtype, tp = deployment.dtype, deployment.tp
    layer = layer_bytes(model.layers[model.layer_order[-1]], dtype, None, tp)
    vectors = _JOINED.get(deployment.switches.speculative_method or "", 2)
    joint = ceil_div(vectors * model.hidden_size**2 * dtype.bits, 8)
    tables = sum(_rank_bytes(weight, model, dtype, deployment) for weight in _missing_tables(model, ()))
    return Measured(
        name="draft weights",
        num_bytes=layer + joint + tables,
        spread_bytes=layer + tables,
        source="assumed: one layer like the model's last, a matrix that joins its states, token table and output head",
        basis="assumed",
    )


def own_token_bytes(model: ModelSpec, deployment: Deployment, charged: int) -> tuple[int, int]:
    """Bytes that one token takes in the draft's own pools: (for each of the full pool, for each of the sliding one).

    A draft has every token on every rank of decode context parallelism. `charged` is what the size of a token counts
    for it, and what stands for a head that nobody names.
    """
    method, draft = deployment.switches.speculative_method, deployment.draft
    if method in (None, "ngram"):
        return 0, 0
    of, alone = draft or model, _alone(deployment)
    if of.draft is not None and (draft is not None or method == "mtp"):
        return sum(own_entry(mixer, of, alone) for mixer in of.draft.mixers) * deployment.dcp, 0
    if draft is None:
        return charged, 0
    (stage,) = stages(draft, alone)
    if not is_hybrid_swa(model):
        return (stage.full_bytes + stage.sliding_bytes) * deployment.dcp, 0
    return stage.full_bytes, stage.sliding_bytes


def _alone(deployment: Deployment) -> Deployment:
    """The deployment of the draft itself: on one stage, with every token on every rank."""
    switches = replace(
        deployment.switches, speculative_method=None, num_speculative_tokens=0, draft_model=None, stage_layers=()
    )
    return replace(deployment, pp=1, dcp=1, switches=switches, draft=None)
