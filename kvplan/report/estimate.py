"""A plan as a page: where the memory goes, whether it fits, and the exact numbers behind it."""

from itertools import groupby

from kvplan.core.layout import MAX_SEARCHED_GPUS, GpuUse
from kvplan.core.model import ModelSpec
from kvplan.core.plan import Plan
from kvplan.core.text import printable
from kvplan.core.units import format_bytes, format_count
from kvplan.report.engine import engine_tables
from kvplan.report.page import LINE_LENGTH, Line, Page, Table, exact_bytes, gib, milliseconds, percent, plural


def plan_page(plan: Plan) -> Page:
    """The answer of `kvplan estimate`."""
    tables = [*_bounds(plan), _memory(plan), *_stages(plan), *engine_tables(plan.serving, plan.accounts, plan.pool)]
    tables += [_whole(plan), *_cache_groups(plan), *_attention(plan)]
    lines = (source_line(plan.model, max_length=LINE_LENGTH), _inputs_line(plan), _measured_line(plan))
    return Page(
        title=model_title(plan.model, plan.weights.num_parameters, plan.weights.active_parameters),
        lines=tuple(Line(line, "faint") for line in lines if line),
        tables=tuple(tables),
    )


def _bounds(plan: Plan) -> list[Table]:
    """The two bounds of an architecture that is not understood, and why they differ."""
    least = plan.bounds
    if least is None:
        return []
    rows = (
        ("parameters", f"{least.num_parameters:,}", f"{plan.weights.num_parameters:,}"),
        ("weights", format_bytes(least.weights_bytes), format_bytes(plan.weights.total_bytes)),
        ("KV cache", format_bytes(least.kv_cache_bytes), format_bytes(plan.kv_cache.reserved_bytes)),
    )
    return [
        Table(
            title="Not understood: between two bounds (all figures below are the most)",
            header=("", "least", "most"),
            align="lrr",
            rows=rows,
            after=tuple(Line(printable(reason, max_length=300), "faint") for reason in least.reasons),
        )
    ]


def model_title(model: ModelSpec, num_parameters: int, active_parameters: int) -> str:
    """`meta-llama/Llama-2-70b: 68.98 B parameters, 80 layers, LlamaForCausalLM`."""
    active = f" ({format_count(active_parameters)} active)" if active_parameters != num_parameters else ""
    architecture = printable(model.architecture or model.model_type)
    parameters = f"{format_count(num_parameters)} parameters{active}"
    return f"{printable(model.id)}: {parameters}, {plural(model.num_layers, 'layer')}, {architecture}"


def source_line(model: ModelSpec, *, max_length: int = 300) -> str:
    """Where the facts come from, and at which revision; a long account cut short, a revision never."""
    source = model.source
    named = {"catalog": "the catalog", "hub": "the Hub", "gguf": "a GGUF file"}
    kind = named.get(source.kind, f"a {source.kind}")
    revision = f", revision {printable(source.revision)}" if source.revision else ""
    start = f"facts from {kind}: " if source.location else f"facts from {kind}"
    room = max(20, max_length - len(start) - len(revision) - 1)
    return f"{start}{printable(source.location, max_length=room)}{revision}"


def _inputs_line(plan: Plan) -> str:
    serving = plan.serving
    tokens = f"{serving.seq_len:,} tokens{' each' if serving.batch_size > 1 else ''}"
    if serving.encoder_seq_len is not None and plan.model.has_encoder:
        looked_at = "image tokens" if plan.model.crosses_images else "encoder"
        tokens += f" ({looked_at} {serving.encoder_seq_len:,})"
    chunked = serving.max_num_batched_tokens < serving.seq_len * serving.batch_size
    quant = f" as {printable(serving.quant.method)}" if serving.quant else ""
    version = f" {serving.engine.version}" if serving.engine.version else ""
    words = (
        f"{plural(serving.batch_size, 'sequence')} of {tokens}",
        f"passes of {serving.max_num_batched_tokens:,}" if chunked else "",
        f"weights {serving.dtype.name}{quant}",
        f"KV cache {serving.kv_dtype.name}",
        f"{serving.attention_backend} attention",
        f"engine {serving.engine.name}{version}",
    )
    return ", ".join(word for word in words if word)


def _measured_line(plan: Plan) -> str:
    """What rests on a record of the device, and on which; nothing where nothing does."""
    measured = plan.serving.gpu.measured if plan.serving.gpu else None
    if measured is None:
        return ""
    context = any(overhead.source == measured.source for overhead in plan.overheads)
    speed = plan.speed is not None and plan.speed.basis == "measured"
    figures = " and ".join(["context"] * context + ["bandwidth"] * speed)
    return f"{figures} as measured: {printable(measured.source, max_length=400)}" if figures else ""


def _memory(plan: Plan) -> Table:
    """What the fullest GPU holds, part by part, with the verdict."""
    use, evidence = plan.fullest_gpu, plan.evidence
    capacity, total = use.capacity_bytes, use.total_bytes
    parts = [
        ("weights", use.weights_bytes, evidence["weights"]),
        ("KV cache", use.kv_cache_bytes, evidence["kv_cache"]),
        ("activations", use.activation_bytes, evidence["activations"]),
        ("graphs", use.graph_bytes, evidence["graphs"]),
        ("context", use.context_bytes, evidence["context"]),
        ("total", total, ""),
    ]
    parts = [part for part in parts if part[0] != "graphs" or part[1]]
    whole = capacity or total
    rows = [(name, gib(amount), percent(amount, whole), basis) for name, amount, basis in parts]
    bars = [amount / max(whole, total) for _, amount, _ in parts]
    if capacity is not None:
        rows.append(("capacity", gib(capacity), "", _capacity_note(plan)))
        bars.append(capacity / max(whole, total))
    share = "share" if capacity is None else "of capacity"
    header = ("", "GiB", share, "basis")
    return Table(
        title=_where(plan),
        header=header,
        align="lrrl",
        rows=tuple(rows),
        bars=tuple(bars),
        after=(*_verdict(plan), *_decode(plan)),
    )


def _where(plan: Plan) -> str:
    serving = plan.serving
    gpu = printable(serving.gpu.name) if serving.gpu else "GPU"
    if serving.num_gpus == 1:
        return f"On one {gpu}"
    layout = _layout(serving.tp, serving.pp)
    many = f"{serving.num_gpus} × {gpu}" if serving.gpu else f"{serving.num_gpus} GPUs"
    if _all_equal(plan):
        return f"On each of {many} ({layout})"
    return f"On the fullest of {many} ({layout}): stage {plan.fullest_gpu.stage}"


def _all_equal(plan: Plan) -> bool:
    return len({use.total_bytes for use in plan.per_gpu}) == 1


def _capacity_note(plan: Plan) -> str:
    utilization = plan.serving.gpu_memory_utilization
    return "" if utilization == 1 else f"{utilization:g} of the memory"


def _verdict(plan: Plan) -> tuple[Line, ...]:
    free = plan.fullest_gpu.free_bytes
    if plan.fits is None or free is None:
        return ()
    if plan.fits:
        which = "each" if _all_equal(plan) else "the fullest"
        where = f" on {which} GPU" if plan.serving.num_gpus > 1 else ""
        fewer = plan.smallest_fit is not None and plan.smallest_fit.num_gpus < plan.serving.num_gpus
        also = f"; {_smallest(plan)} would do" if fewer else ""
        return (Line(f"fits: {format_bytes(free)} free{where}{also}", "good"),)
    if free >= 0:
        return (Line(f"does not start, although {format_bytes(free)} would be free: the warnings say why", "bad"),)
    would_do = (
        f"smallest that would do: {_smallest(plan)}"
        if plan.smallest_fit
        else f"nor do {MAX_SEARCHED_GPUS} GPUs hold it"
    )
    return (Line(f"does not fit: {format_bytes(-free)} too much; {would_do}", "bad"),)


def _decode(plan: Plan) -> tuple[Line, ...]:
    """The ceiling of the speed, where the plan may fit; stages read in turn."""
    floor = plan.speed
    if floor is None or plan.fits is False:
        return ()
    in_turn = " in turn" if plan.serving.pp > 1 else ""
    read = f"reads {format_bytes(floor.decode_read_bytes)}{in_turn} a step"
    time = f"{milliseconds(floor.decode_seconds_at_least)} at {_rate(floor.bandwidth_bytes_per_second)}"
    return (Line(f"decode: {read}, {time} ({floor.basis}): at most {_tokens(floor.tokens_per_second_at_most)}"),)


def _rate(bytes_per_second: float) -> str:
    """`3.35 TB/s`, `300 GB/s`: decimal, as makers quote it."""
    return f"{bytes_per_second / 1e12:,.4g} TB/s" if bytes_per_second >= 1e12 else f"{bytes_per_second / 1e9:,.4g} GB/s"


def _tokens(per_second: float) -> str:
    """Whole tokens, below ten a tenth more."""
    return f"{per_second:,.{0 if per_second >= 10 else 1}f} tokens/s"


def _smallest(plan: Plan) -> str:
    found, gpu = plan.smallest_fit, plan.serving.gpu
    if found is None or gpu is None:
        return ""
    layout = "" if found.num_gpus == 1 else f" ({_layout(found.tp, found.pp)})"
    return f"{found.num_gpus} × {printable(gpu.name)}{layout}"


def _layout(tp: int, pp: int) -> str:
    return f"tp {tp}" if pp == 1 else f"tp {tp}, pp {pp}"


def _stages(plan: Plan) -> list[Table]:
    """One row a run of equal pipeline stages, where stages differ."""
    stages = [use for use in plan.per_gpu if use.rank % plan.serving.tp == 0]
    runs = [list(run) for _, run in groupby(stages, key=_amounts)]
    if len(runs) == 1:
        return []
    header = ("stage", "GPUs", "weights", "KV cache", "activations", "context", "total GiB")
    rows = []
    for run in runs:
        first, last = run[0], run[-1]
        stages_of_run = _span(first.stage, last.stage)
        gpus = _span(first.rank, last.rank + plan.serving.tp - 1)
        rows.append((stages_of_run, gpus, *(gib(amount) for amount in (*_amounts(first), first.total_bytes))))
    return [Table(title="Pipeline stages, each GPU", header=header, align="llrrrrr", rows=tuple(rows))]


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _amounts(use: GpuUse) -> tuple[int, int, int, int]:
    """What a stage's GPUs hold; graphs are counted with the context."""
    return (use.weights_bytes, use.kv_cache_bytes, use.activation_bytes, use.graph_bytes + use.context_bytes)


def _whole(plan: Plan) -> Table:
    """The exact integers of the whole model, and what the biggest part is."""
    weights, cache, engine = plan.weights, plan.kv_cache, plan.serving.engine
    numbers = [weights.num_parameters, weights.total_bytes, cache.reserved_bytes, cache.needed_bytes]
    width = max(len(f"{number:,}") for number in numbers)
    rows = [("parameters", f"{weights.num_parameters:>{width},}", "")]
    if weights.active_parameters != weights.num_parameters:
        share = percent(weights.active_parameters, weights.num_parameters)
        rows.append(("active", f"{weights.active_parameters:>{width},}", f"{share} serve one token"))
    quant = f", {printable(weights.quantization)}" if weights.quantization else ""
    rows.append(("weights", exact_bytes(weights.total_bytes, width), f"{weights.dtype}{quant}{_parts(plan)}"))
    if weights.stored_bytes is not None and weights.stored_bytes != weights.total_bytes:
        rows.append(("stored", exact_bytes(weights.stored_bytes, width), "the repository's files"))
    rows.append(("KV cache", exact_bytes(cache.needed_bytes, width), cache.dtype))
    if cache.reserved_bytes != cache.needed_bytes:
        version = f" {engine.version}" if engine.version else ""
        rows.append(("reserved", exact_bytes(cache.reserved_bytes, width), f"held by {engine.name}{version}"))
    rows.append(("per token", exact_bytes(cache.bytes_per_token, width), "the last token of one sequence"))
    if cache.fixed_bytes_per_sequence:
        fixed = exact_bytes(cache.fixed_bytes_per_sequence, width)
        rows.append(("per sequence", fixed, "however long it is"))
    return Table(title="Whole model", header=("", "", ""), align="lll", rows=tuple(rows))


def _parts(plan: Plan) -> str:
    """`: mlp 82 %, attention 18 %`: the biggest parts first, small ones left out."""
    parts = sorted(plan.weights.parts.items(), key=lambda item: -item[1].total_bytes)
    whole = sum(size.total_bytes for _, size in parts)
    shown = [
        f"{name} {percent(size.total_bytes, whole)}" for name, size in parts[:3] if size.total_bytes * 100 >= whole
    ]
    return f": {', '.join(shown)}" if shown else ""


def _cache_groups(plan: Plan) -> list[Table]:
    """The cache by kind of layer, where there is one."""
    cache = plan.kv_cache
    if not cache.layers:
        return []
    reserved = cache.reserved_bytes != cache.needed_bytes
    rows = []
    for group in cache.layers:
        tokens = {"cross": "encoder's tokens", "linear": "fixed state", "conv": "fixed state"}
        held = tokens.get(group.kind, "all tokens") if group.max_tokens is None else f"{group.max_tokens:,} tokens"
        if group.tokens_per_entry > 1:
            held = f"1 entry for {group.tokens_per_entry} tokens"
        row = (f"{group.count} × {group.kind}", held, f"{group.bytes_per_token:,}", format_bytes(group.needed_bytes))
        rows.append((*row, format_bytes(group.reserved_bytes)) if reserved else row)
    header = ("layers", "keep", "bytes/token", "needed", *(["reserved"] if reserved else []))
    align = "llrr" + "r" * reserved
    return [Table(title="KV cache by layer", header=header, align=align, rows=tuple(rows))]


def _attention(plan: Plan) -> list[Table]:
    """Transient bytes of the largest call of each pass, one column a backend."""
    if not plan.attention:
        return []
    backends = tuple(plan.attention[0].bytes_per_backend)
    rows = []
    for call in plan.attention:
        shape = f"{call.batch_size:,} × {call.query_tokens:,} × {call.key_tokens:,}"
        amounts = (format_bytes(call.bytes_per_backend[name]) for name in backends)
        rows.append((call.phase, shape, *amounts))
    chosen = plan.serving.attention_backend
    return [
        Table(
            title=f"Transient memory of the largest attention call, by backend (the plan counts {chosen})",
            header=("", "batch × query × key", *backends),
            align="ll" + "r" * len(backends),
            rows=tuple(rows),
        )
    ]
