"""What an engine has to be told to be started so: options under kvplan's names, where they differ from its defaults."""

from dataclasses import replace

from kvplan.core.dtypes import TURBOQUANT
from kvplan.core.engines.deployment import Switches
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving, own_dtype, own_kv_format


def told(model: ModelSpec, serving: Serving) -> dict[str, object]:
    """Length, format, layout, share and switches; what the engine does by itself is left out."""
    switches = serving.switches
    options: dict[str, object] = {
        "max_model_len": serving.seq_len,
        "max_num_seqs": switches.max_num_seqs,
        "gpu_memory_utilization": serving.gpu_memory_utilization if serving.share_stated else None,
        "dtype": None if serving.dtype == own_dtype(model, serving.engine, serving.gpu) else serving.dtype.name,
        "kv_dtype": _kv_dtype(model, serving),
        "quant": serving.quant.method if serving.quant is not None and serving.quant_planned else None,
    }
    for name in ("tp", "pp", "dp", "dcp", "pcp"):
        degree = getattr(serving, name)
        options[name] = degree if degree > 1 else None
    options |= {name: getattr(switches, name) for name in Switches.__dataclass_fields__ if name in switches.given}
    if serving.draft is not None:
        options.setdefault("draft_model", serving.draft.id)
    return {name: value for name, value in options.items() if value is not None}


def _kv_dtype(model: ModelSpec, serving: Serving) -> str | None:
    key, value = serving.kv_dtype, serving.value_dtype
    if key == value:
        bare = replace(model, quantization=None) if serving.quant_planned else model
        by_itself = own_kv_format(bare, serving.engine, serving.gpu, serving.switches)
        return None if key.name == (by_itself or serving.dtype.name) else key.name
    return key.name if key.name in TURBOQUANT else f"{key.name}/{value.name}"
