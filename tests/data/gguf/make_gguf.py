"""Write down the tables of tensors that llama.cpp's converter makes of small models: `models.json`; and the
sizes of ggml's formats: `formats.json`.

    python make_gguf.py > models.json

Each model is built by transformers on the meta device from a small config; its parameters get the names that the
package `gguf` maps them to, experts are stacked, fused pieces stay fused (`conversions.py`). Formats are dealt out as llama.cpp's Q4_K_M
does: vectors in F32, most matrices in Q4_K, every second layer's value and down projections and the output in Q6_K.
The metadata are those that convert_hf_to_gguf.py writes (`conversion_keys.py`). Needs torch, transformers 5.23 and gguf 0.19; the tests only
read the output and write small GGUF files from it.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gguf
import torch
import transformers
from conversion_keys import stated
from conversions import LEFT_OUT, pieces
from small_models import ENCODERS, MODELS, NAMES, OWN_SIZES, SIZES, STAND_INS
from transformers import CONFIG_MAPPING
from transformers.models.step3p7.modeling_step3p7 import Step3p7TextModel


def build(name: str, config: dict[str, Any]) -> Any:
    """The model, without storage."""
    built = CONFIG_MAPPING[config["model_type"]].from_dict({"pad_token_id": 0} | config)
    with torch.device("meta"):
        if name in ENCODERS:
            return transformers.AutoModel.from_config(built, dtype=torch.bfloat16)
        if type(built) in transformers.AutoModelForCausalLM._model_mapping:
            return transformers.AutoModelForCausalLM.from_config(built, dtype=torch.bfloat16)
        return TextModel(built)


class TextModel(torch.nn.Module):
    """A text model that transformers has only as part of another, with a head."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        if type(config) in transformers.AutoModel._model_mapping:
            self.model = transformers.AutoModel.from_config(config, dtype=torch.bfloat16)
        else:
            self.model = Step3p7TextModel(config)
        if not getattr(config, "tie_word_embeddings", False):
            self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)


def tensors(arch: str, model: Any) -> list[list[Any]]:
    """[name, shape, format] of every tensor, as the converter writes them."""
    number = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch)
    num_layers = len(getattr(model.config, "layers_block_type", ())) or model.config.num_hidden_layers
    names = gguf.get_tensor_name_map(number, num_layers)
    shapes = {name: list(p.shape) for name, p in model.named_parameters()}
    buffers = ("e_score_correction_bias", "expert_bias", "layer_scalar")
    shapes |= {name: list(b.shape) for name, b in model.named_buffers() if name.endswith(buffers)}
    table = []
    for name, shape in shapes.items():
        for old, new in pieces(name, shape, model.config, arch):
            if old.startswith(("blk.", "=")):
                found = old.removeprefix("=")
            else:
                tries = (
                    names.get_name(f"{before}{old}", try_suffixes=(".weight", ".bias")) for before in ("", "model.")
                )
                found = next((name for name in tries if name), None)
            if found is None:
                raise LookupError(f"{arch}: {old}")
            table.append([found, new])
    return [[name, shape, form(name, shape)] for name, shape in table]


ALWAYS_F32 = ("ffn_gate_inp", "norm", "position_embd", "token_types", "ssm_conv1d", "shortconv.conv", "_coef.")
NEVER_QUANTISED = ("altup", "laurel", "per_layer_model_proj")
"""What llama.cpp's converter and its quantiser leave as they are."""


def form(name: str, shape: list[int]) -> str:
    """The format of a tensor in a file of the kind Q4_K_M; rows that are no whole blocks of 256 fall back to Q8_0."""
    if len(shape) == 1 or not name.endswith(".weight") or any(word in name for word in ALWAYS_F32):
        return "F32"
    if any(word in name for word in NEVER_QUANTISED):
        return "F16"
    if shape[-1] % 256:
        return "Q8_0" if shape[-1] % 32 == 0 else "F16"
    layer = re.match(r"blk\.(\d+)\.", name)
    wide = any(word in name for word in ("attn_v", "ffn_down", "attn_qkv"))
    return "Q6_K" if name == "output.weight" or (layer and wide and int(layer[1]) % 2) else "Q4_K"


def main() -> int:
    """Write all models."""
    transformers.logging.set_verbosity_error()
    found: dict[str, Any] = {}
    sizes = {int(kind): [kind.name, *size] for kind, size in gguf.GGML_QUANT_SIZES.items()}
    (Path(__file__).parent / "formats.json").write_text(json.dumps(sizes).replace("], ", "],\n") + "\n")
    for name, given in MODELS.items():
        config = given if name in OWN_SIZES else SIZES | given
        built = SIZES | STAND_INS[name] if name in STAND_INS else config
        model, arch = build(name, built), NAMES.get(name, name)
        found[name] = {
            "config": config,
            "metadata": {"general.architecture": arch, "general.type": "model"} | stated(arch, built, model.config),
            "tensors": tensors(arch, model),
            "num_parameters": sum(p.numel() for p in model.parameters()),
            "left_out": sum(p.numel() for name, p in model.named_parameters() if name.startswith(LEFT_OUT)),
        }
    sys.stdout.write(json.dumps(found, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
