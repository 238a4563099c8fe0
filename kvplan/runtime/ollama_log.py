"""What Ollama itself logs around the runner that it starts: `level=INFO source=server.go msg=… key=value …`.

Its sizes are `HumanBytes2` of its format package: 2^10 a step and one decimal. Sources: Ollama 0.1.30 to 0.24,
server/sched.go, llm/memory.go, llm/server.go, ml/device.go, runner/ollamarunner/runner.go.
"""

import re

from kvplan.runtime.lines import Line
from kvplan.runtime.wording import NUMBER, Start, fails, wording

_SIZE = rf'\\?"?(?P<x_size>{NUMBER}) (?P<x_size_unit>[KMG]iB|B)'


def _read_estimate(start: Start, found: re.Match[str], line: Line) -> None:
    """What Ollama expects before it loads: it decides by that how many layers go to the GPU."""
    del found
    for key, name in (
        ("memory.required.full", "expected_total"),
        ("memory.required.kv", "expected_kv_cache"),
        ("memory.weights.total", "expected_weights"),
        ("memory.graph.full", "expected_graph"),
    ):
        said = re.search(rf"\b{re.escape(key)}={_SIZE}", line.text)
        if said:
            start.add(name, said["x_size"], said["x_size_unit"], line)
    for key, name in (("layers.offload", "gpu_layers"), ("layers.model", "model_layers")):
        said = re.search(rf"\b{re.escape(key)}=(\d+)", line.text)
        if said:
            start.add(name, said[1], "layers", line)
            if name == "gpu_layers":
                start.options["num_gpu_layers"] = int(said[1])


_FLAGS = {
    "max_model_len": ("c", "-ctx-size"),
    "max_num_batched_tokens": ("b", "-batch-size"),
    "num_ubatch_tokens": ("ub", "-ubatch-size"),
    "num_gpu_layers": ("ngl", "-n-gpu-layers", "-gpu-layers"),
    "max_num_seqs": ("np", "-parallel"),
}
_NAMES = {flag: name for name, flags in _FLAGS.items() for flag in flags}
_TYPES = {"ctk": "type_k", "-cache-type-k": "type_k", "ctv": "type_v", "-cache-type-v": "type_v"}


def _read_command(start: Start, found: re.Match[str], line: Line) -> None:
    """The runner's command line; what the runner prints itself stands over it."""
    command = line.text[found.end() :]
    model = re.search(r" (?:--model|-m) (\S+)", command)
    if model:
        start.model = model[1].rstrip('"').replace("\\\\", "\\")
    for flag, text in re.findall(r" -(-?[a-z\-]+) (\w+)", command):
        if flag in _NAMES and text.isdigit():
            start.options[_NAMES[flag]] = int(text)
        elif flag in _TYPES:
            start.facts[_TYPES[flag]] = text
        elif flag == "-kv-cache-type":
            start.facts["type_k"] = start.facts["type_v"] = text
    flash = re.search(r" (?:--flash-attn|-fa)(?: (on|off|auto)\b)?", command)
    if flash and flash[1] != "auto":
        start.options["flash_attention"] = flash[1] != "off"


_REQUEST = {"Parallel": "max_num_seqs", "BatchSize": "max_num_batched_tokens", "KvSize": "max_model_len"}


def _read_request(start: Start, found: re.Match[str], line: Line) -> None:
    """What the server asks of the runner; asked several times until it fits, the last counts."""
    request = line.text[found.end() :]
    for name, text in re.findall(r"\b(\w+):(\d+)\b", request):
        if name in _REQUEST:
            start.options[_REQUEST[name]] = int(text)
    layers = re.search(r"GPULayers:(\d+)\[", request)
    if layers:
        start.options["num_gpu_layers"] = int(layers[1])
    kind = re.search(r"KvCacheType:(\w+)", request)
    if kind and kind[1] != "NumThreads":
        start.facts["type_k"] = start.facts["type_v"] = kind[1]
    flash = re.search(r"FlashAttention:(\w+)", request)
    if flash and flash[1] in ("true", "false", "Enabled", "Disabled"):
        start.options["flash_attention"] = flash[1] in ("true", "Enabled")


def _read_device(start: Start, found: re.Match[str], line: Line) -> None:
    """What lies on one device, rounded to one decimal: taken where llama.cpp did not say it."""
    name = {"model weights": "model_buffer", "kv cache": "kv_buffer", "compute graph": "compute_buffer"}[
        found["x_what"]
    ]
    start.add(name, found["x_size"], found["x_size_unit"], line, rank=found["x_device"], weak=True)
    start.facts["ollama_engine"] = "yes"


def _read_buffer(start: Start, found: re.Match[str], line: Line) -> None:
    """The same of the engine of its own before 0.11, which says again what grew."""
    name = {"model weights": "model_buffer", "compute graph": "compute_buffer"}[found["x_what"]]
    start.add(name, found["x_size"], found["x_size_unit"], line, rank=found["x_device"], last=True)
    start.facts["ollama_engine"] = "yes"


def _read_gpu(start: Start, found: re.Match[str], line: Line) -> None:
    del found
    name = re.search(r'\bdescription=\\?"([^"\\]+)', line.text) or re.search(r'\bname=\\?"([^"\\]+)', line.text)
    total = re.search(rf"\btotal={_SIZE}", line.text)
    if "library=cpu" in line.text or not name:
        return
    device = re.search(r"\bname=([A-Za-z]+\d+)\b", line.text)
    rank = device[1] if device else f"CUDA{len(start.gpus)}"
    start.gpus.setdefault(rank, name[1])
    start.num_gpus = len(start.gpus)
    if total:
        start.add("device_total", total["x_size"], total["x_size_unit"], line, rank=rank)


def _read_model(start: Start, found: re.Match[str], line: Line) -> None:
    """The runner of Ollama's own engine names the model it opens."""
    del line
    start.facts.setdefault("architecture", found["x_architecture"])
    name = (found["x_quoted"] or found["x_bare"] or "").strip()
    if name:
        start.facts.setdefault("name", name)


def _read_server(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    start.facts["ollama"] = found["x_version"]


OLLAMA = (
    wording(
        "Listening on",
        r"msg=\\?\"Listening on \S+ \(version (?P<x_version>[^)]+)\)",
        "0.1+",
        begins="process",
        then=_read_server,
    ),
    wording("inference compute", r"msg=\\?\"inference compute\\?\"", "0.1.30+", then=_read_gpu),
    wording("memory.required.", r"msg=\\?\"?offload\b", "0.1.30 to 0.12", begins="load", then=_read_estimate),
    wording(
        "starting llama server",
        r"msg=\\?\"starting llama server\\?\" cmd=",
        "0.1.30 to 0.11",
        begins="load",
        then=_read_command,
    ),
    wording(
        "starting llama-server",
        r"msg=\\?\"starting llama-server\\?\" cmd=",
        "from 2026",
        begins="load",
        then=_read_command,
    ),
    wording("starting runner", r"msg=\\?\"starting runner\\?\" cmd=", "0.12+", begins="load", then=_read_command),
    wording("Operation:", r"msg=load request=", "0.11+", then=_read_request),
    wording(
        "num_key_values=",
        r"\barchitecture=(?P<x_architecture>\w+) .*?\bname=(?:\\?\"(?P<x_quoted>[^\"\\]*)|(?P<x_bare>\S+))",
        "0.6+",
        then=_read_model,
    ),
    wording(
        " device=",
        rf"msg=\\?\"(?P<x_what>model weights|kv cache|compute graph)\\?\" device=(?P<x_device>\w+) size={_SIZE}",
        "0.11+",
        then=_read_device,
    ),
    wording(
        " buffer",
        r"msg=\\?\"(?P<x_what>model weights|compute graph)\\?\" (?:backend=\w+ )?buffer(?:_type)?=(?P<x_device>\w+)"
        rf" size={_SIZE}",
        "0.6 to 0.10",
        then=_read_buffer,
    ),
    wording("runner process has terminated", r"(?:llama )?runner process has terminated: [^\n]*", "0.1+", then=fails),
    wording("requires more system memory", r"model requires more system memory", "0.1+", then=fails),
)
"""The wordings of Ollama's server, in the dialect of llama.cpp."""
