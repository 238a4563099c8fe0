"""How a model is served: lengths, formats, engine, layout over GPUs; every default resolved."""

from dataclasses import dataclass, field, replace
from math import ceil
from operator import index
from typing import Any

from kvplan.core.attention import BACKENDS
from kvplan.core.device import visible_bytes
from kvplan.core.dtypes import BF16, DType, parse_dtype, parse_kv_dtypes
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.engine import Engine
from kvplan.core.engines.table import find_engine
from kvplan.core.errors import InputError, RefusedError
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec, Quantization
from kvplan.core.text import join_words
from kvplan.core.units import MIB, smaller
from kvplan.core.weights import parse_quant

DEFAULT_SEQ_LEN = 4096
MAX_COUNT = 2**40
"""Beyond any machine; a bound keeps every product a number that can be printed."""
MIN_CAPACITY = MIB
"""Less than any accelerator has; `80` for 80 GiB is a slip of the pen."""
RATES = (1e6, 1e18)
"""Bytes per second of a memory, least and most: `3.35` for 3.35 TB/s is a slip of the pen."""
MAX_GPUS = 4096
"""GPUs of one replica: tensor-parallel ranks times pipeline stages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """One way to serve one model."""

    seq_len: int
    encoder_seq_len: int | None
    encoder_follows: bool
    """True where the encoder's length is `seq_len` because nothing else was said: a sweep moves both."""
    batch_size: int
    dtype: DType
    dtype_stated: bool
    """False where neither the checkpoint nor the user names a dtype."""
    kv_dtype: DType
    """Of keys, and of what is key and value at once."""
    value_dtype: DType
    kv_dtype_stated: bool
    """False where the cache takes its format from a dtype that nobody named."""
    kv_dtype_own: bool = False
    """True where nobody names the cache's format, and the engine takes another than it computes in."""
    quant: Quantization | None
    quant_planned: bool
    """True where the user asked for the quantisation, False where the checkpoint has it."""
    engine: Engine
    attention_backend: str
    pass_limit: int | None
    """Tokens of one forward pass at most; None = the whole prompt at once."""
    tp: int
    pp: int
    dp: int = 1
    """Replicas; with attention over dp ranks, those of the attention, which lie within tp."""
    dcp: int = 1
    pcp: int = 1
    gpu: Gpu | None
    gpu_memory_utilization: float
    share_stated: bool = True
    """False where the share is the engine's own default."""
    switches: Switches = field(default_factory=Switches)
    """What the engine is told beyond all this."""
    draft: ModelSpec | None = None
    """The model that drafts apart, where there is one and the engine plans it."""

    @property
    def num_gpus(self) -> int:
        """tp · pp · pcp, times the replicas: decode context parallelism and attention over dp take no further ones."""
        return self.tp * self.pp * self.pcp * (1 if self.switches.attention_dp else self.dp)

    @property
    def attention_tp(self) -> int:
        """Ranks that share one attention's heads."""
        return self.tp // self.dp if self.switches.attention_dp else self.tp

    @property
    def deployment(self) -> Deployment:
        """The same in the words of an engine."""
        length = self.seq_len if isinstance(self.seq_len, int) else int(max(self.seq_len))
        return Deployment(
            dtype=self.dtype,
            key_dtype=self.kv_dtype,
            value_dtype=self.value_dtype,
            max_model_len=length,
            tp=self.tp,
            pp=self.pp,
            dp=self.dp,
            dcp=self.dcp,
            pcp=self.pcp,
            gpu=self.gpu,
            memory_share=self.gpu_memory_utilization if self.share_stated else None,
            switches=self.switches,
            draft=self.draft,
        )

    @property
    def max_num_batched_tokens(self) -> int:
        """Tokens of one forward pass: all prompts together, up to the limit."""
        prompt_tokens = self.seq_len * self.batch_size
        return prompt_tokens if self.pass_limit is None else smaller(self.pass_limit, prompt_tokens)

    @property
    def capacity_bytes(self) -> int | None:
        """What one GPU may use: driver-reported memory · utilisation; an engine goes by what its framework sees."""
        if self.gpu is None or self.gpu.memory_bytes is None:
            return None
        if self.engine.pooled is not None:
            return ceil(visible_bytes(self.gpu) * self.gpu_memory_utilization)
        return int(self.gpu.memory_bytes * self.gpu_memory_utilization)


def resolve(
    model: ModelSpec,
    *,
    seq_len: int | None = None,
    encoder_seq_len: int | None = None,
    batch_size: int = 1,
    dtype: str | None = None,
    kv_dtype: str | None = None,
    quant: str | None = None,
    tp: int | None = None,
    pp: int = 1,
    dp: int = 1,
    dcp: int = 1,
    pcp: int = 1,
    engine: str = "exact",
    attention: str = "flash",
    max_num_batched_tokens: int | None = None,
    gpu: Gpu | None = None,
    num_gpus: int | None = None,
    gpu_memory_utilization: float | None = None,
    switches: Switches | None = None,
    draft: ModelSpec | None = None,
) -> Serving:
    """Check what the user asked for and fill in every default.

    Raises InputError for a value that makes no sense, alone or together with the others.
    """
    if seq_len is None:
        seq_len = min(DEFAULT_SEQ_LEN, model.max_seq_len or DEFAULT_SEQ_LEN)
    _check_texts(engine, dtype=dtype, kv_dtype=kv_dtype, quant=quant)
    seq_len, batch_size, pp = positive("seq_len", seq_len), positive("batch_size", batch_size), positive("pp", pp)
    dp, dcp, pcp = positive("dp", dp), positive("dcp", dcp), positive("pcp", pcp)
    switches = switches or Switches()
    profile = find_engine(engine, switches.cache)
    tp, pp = _layout(
        model, profile, switches, num_gpus, tp=tp, pp=pp, others=pcp * (1 if switches.attention_dp else dp)
    )
    share = _default_share(profile) if gpu_memory_utilization is None else _share(gpu_memory_utilization)
    _check_attention(attention)
    limit = profile.max_pass_tokens
    if max_num_batched_tokens is not None:
        limit = positive("max_num_batched_tokens", max_num_batched_tokens)
        switches = replace(switches, max_num_batched_tokens=limit)
    serving = Serving(
        seq_len=seq_len,
        encoder_seq_len=_encoder_length(model, encoder_seq_len, seq_len),
        encoder_follows=encoder_seq_len is None and _encoder_follows(model),
        batch_size=batch_size,
        **_formats(model, profile, gpu, switches, dtype=dtype, kv_dtype=kv_dtype, quant=quant),
        engine=profile,
        attention_backend=attention,
        pass_limit=limit,
        tp=tp,
        pp=pp,
        dp=dp,
        dcp=dcp,
        pcp=pcp,
        gpu=gpu,
        gpu_memory_utilization=share,
        share_stated=gpu_memory_utilization is not None,
        switches=switches,
        draft=draft,
    )
    _check_capacity(serving.capacity_bytes)
    _check_bandwidth(gpu)
    _check_engine(model, serving)
    return serving


def _layout(
    model: ModelSpec, engine: Engine, switches: Switches, num_gpus: int | None, *, tp: int | None, pp: int, others: int
) -> tuple[int, int]:
    """(tp, pp), of which an engine that deals out whole layers has one stage a device; `others` are its replicas."""
    if engine.pooled is not None and engine.pooled.splits_layers and pp == 1 and tp is None:
        pp = len(switches.tensor_split) or (1 if num_gpus is None else positive("num_gpus", num_gpus))
    tp = _tensor_parallel(tp, pp, num_gpus, others)
    _check_layout(model, tp, pp * others, pp)
    return tp, pp


def _formats(
    model: ModelSpec,
    engine: Engine,
    gpu: Gpu | None,
    switches: Switches,
    *,
    dtype: str | None,
    kv_dtype: str | None,
    quant: str | None,
) -> dict[str, Any]:
    """What weights, activations and the cache are held in, and who says so."""
    dtype = None if dtype == "auto" else dtype
    kv_dtype = None if kv_dtype == "auto" else kv_dtype
    model_dtype = parse_dtype(dtype) if dtype else own_dtype(model, engine, gpu)
    bare = model if quant is None else replace(model, quantization=None)
    own_format = None if kv_dtype else own_kv_format(bare, engine, gpu, switches)
    key_dtype, value_dtype = _kv_dtypes(own_format or kv_dtype, model_dtype, engine)
    stated = bool(dtype) or model.dtype is not None
    return {
        "dtype": model_dtype,
        "dtype_stated": stated,
        "kv_dtype": key_dtype,
        "value_dtype": value_dtype,
        "kv_dtype_stated": kv_dtype is not None or own_format is not None or stated,
        "kv_dtype_own": own_format is not None,
        "quant": model.quantization if quant is None else (None if quant == "none" else parse_quant(quant)),
        "quant_planned": quant not in (None, "none"),
    }


def own_dtype(model: ModelSpec, engine: Engine, gpu: Gpu | None) -> DType:
    """What the engine computes in where nobody says: the checkpoint's, or what it makes of that."""
    if engine.pooled is None or engine.pooled.auto_dtype is None:
        return model.dtype or BF16
    return engine.pooled.auto_dtype(model, gpu)


def own_kv_format(model: ModelSpec, engine: Engine, gpu: Gpu | None, switches: Switches) -> str | None:
    """The cache's format that the engine takes where nobody says; None = what it computes in."""
    if engine.pooled is None or engine.pooled.auto_kv_dtype is None:
        return None
    return engine.pooled.auto_kv_dtype(model, gpu, switches)


def _default_share(engine: Engine) -> float:
    """The engine's own; without one, all of the memory."""
    return (engine.pooled.default_share if engine.pooled else None) or 1.0


def _check_engine(model: ModelSpec, serving: Serving) -> None:
    """What the engine would refuse, and switches that it does not have."""
    pooled, switches = serving.engine.pooled, serving.switches
    known = pooled.switches if pooled else frozenset({"max_num_batched_tokens"})
    if serving.engine.name == "transformers":
        known |= {"cache", "max_num_batched_tokens"}
    if foreign := sorted(switches.given - known):
        message = f"engine `{serving.engine.name}` has no option `{foreign[0]}`"
        raise InputError(message, hint=f"it has {join_words(tuple(sorted(known)))}")
    parallel = {"dp": serving.dp, "dcp": serving.dcp, "pcp": serving.pcp}
    if pooled is None and (wide := [name for name, degree in parallel.items() if degree > 1]):
        raise InputError(
            f"`{wide[0]}` is an engine's, and `{serving.engine.name}` is none", hint="e.g. `--engine vllm`"
        )
    if switches.attention_dp and serving.tp % serving.dp:
        raise InputError(
            f"`dp` {serving.dp} does not divide `tp` {serving.tp}", hint="attention goes over dp of tp ranks"
        )
    if pooled is None:
        return
    try:
        pooled.check(model, serving.deployment)
    except InputError as error:
        raise RefusedError(str(error), hint=error.hint) from error


def positive(name: str, number: int) -> int:
    """`number` as a whole number from 1, numpy's included; a bool, a float or a string is an error."""
    try:
        whole = -1 if isinstance(number, bool) else index(number)
    except TypeError:
        whole = -1
    if not 1 <= whole <= MAX_COUNT:
        large = name.endswith(("_len", "_tokens", "_bytes"))
        raise InputError(
            f"`{name}` is {number!r}, not a whole number from 1 to {MAX_COUNT}",
            hint="e.g. 4096; on the command line also 8K" if large else "e.g. 2",
        )
    return whole


def _check_texts(engine: object, **optional: object) -> None:
    for name, value in {**optional, "engine": engine}.items():
        if not isinstance(value, str) and (value is not None or name == "engine"):
            raise InputError(f"`{name}` is {value!r}, not a name", hint='e.g. dtype="bf16", engine="exact"')


def _check_capacity(num_bytes: int | None) -> None:
    if num_bytes is not None and num_bytes < MIN_CAPACITY:
        raise InputError(f"{num_bytes} bytes are no GPU's memory", hint="give a size like 80GiB, and a share like 0.9")


def _check_bandwidth(gpu: Gpu | None) -> None:
    rate = None if gpu is None else gpu.bandwidth_bytes_per_second
    if rate is not None and not (isinstance(rate, int | float) and RATES[0] <= rate <= RATES[1]):
        raise InputError(f"{rate!r} bytes per second are no GPU's bandwidth", hint="3.35e12 means 3.35 TB/s")


def _check_layout(model: ModelSpec, tp: int, others: int, pp: int) -> None:
    if tp * others > MAX_GPUS:
        raise InputError(f"{tp * others} GPUs are more than one replica can use", hint=f"at most {MAX_GPUS}")
    if pp > model.num_layers:
        raise InputError(f"`pp` is {pp}, but the model has {model.num_layers} layers", hint="use fewer stages")


def _check_attention(attention: str) -> None:
    if attention not in BACKENDS:
        raise InputError(f"`{attention}` is not an attention backend", hint=f"one of {', '.join(BACKENDS)}")


def _share(given: object) -> float:
    """A share as a plain float; numpy's of 32 bits is the decimal that it was made of."""
    share = 0.0
    if isinstance(given, int | float) and not isinstance(given, bool):
        share = float(given)
    elif hasattr(given, "__float__") and not isinstance(given, bool):
        share = round(float(given), 6)
    if not 0 < share <= 1:
        raise InputError(f"`gpu_memory_utilization` is {given!r}, not within (0, 1]", hint="0.9 means 90 %")
    return share


def _tensor_parallel(tp: int | None, pp: int, num_gpus: int | None, replicas: int) -> int:
    if tp is not None:
        tp = positive("tp", tp)
    if num_gpus is None:
        return tp or 1
    num_gpus, others = positive("num_gpus", num_gpus), pp * replicas
    if tp is None and num_gpus % others == 0:
        return num_gpus // others
    if tp is None or tp * others != num_gpus:
        layout = f"tp {tp} × pp {pp}" if tp else f"pp {pp}"
        more = f" × {replicas} replicas" if replicas > 1 else ""
        raise InputError(
            f"{num_gpus} GPUs cannot be laid out as {layout}{more}",
            hint="the number of GPUs is tp · pp; give two of the three, or only the number of GPUs",
        )
    return tp


def _encoder_length(model: ModelSpec, encoder_seq_len: int | None, seq_len: int) -> int | None:
    """What cross-attention looks at: as asked, else what the architecture fixes, no image, or as many as `seq_len`."""
    if encoder_seq_len is None:
        return _default_encoder_length(model, seq_len)
    if not (model.crosses_images and encoder_seq_len == 0 and encoder_seq_len is not False):
        encoder_seq_len = positive("encoder_seq_len", encoder_seq_len)
    if not model.has_encoder:
        raise InputError(
            f"`{model.id}` has no cross-attention, so `encoder_seq_len` has no meaning",
            hint="use `seq_len` alone",
        )
    fixed = model.encoder_seq_len
    if fixed is not None and encoder_seq_len != fixed:
        raise InputError(
            f"`encoder_seq_len` is {encoder_seq_len}, but `{model.id}` encodes any input to {fixed} tokens",
            hint="leave it out",
        )
    return encoder_seq_len


def _encoder_follows(model: ModelSpec) -> bool:
    """Whether the encoder's length is that of the sequence where nothing else is said."""
    if model.encoder_seq_len is not None or model.crosses_images:
        return False
    return model.has_encoder or any(layer.in_encoder for layer in model.layers)


def _default_encoder_length(model: ModelSpec, seq_len: int) -> int | None:
    if _encoder_follows(model):
        return seq_len
    return 0 if model.crosses_images else model.encoder_seq_len


def _kv_dtypes(text: str | None, model_dtype: DType, engine: Engine) -> tuple[DType, DType]:
    pair = parse_kv_dtypes(model_dtype.name if text is None else text)
    for dtype in pair[:1] if pair[0].name.startswith("turboquant") else pair:
        if engine.kv_dtypes is not None and dtype.name not in engine.kv_dtypes:
            hint = f"it holds {join_words(engine.kv_dtypes)}; `--engine exact` counts any format"
            if text in (None, "auto"):
                hint = f"the cache is in the model's dtype; `--dtype bf16` plans a converted checkpoint; {hint}"
            raise InputError(f"engine `{engine.name}` does not hold its KV cache in {dtype.name}", hint=hint)
    return pair
