"""Stub."""
from dataclasses import replace
from kvplan.core.model import Quantization
SIDE_FILE = "hf_quant_config.json"
def with_side_file(config, side):
    if side is None or config.get("quantization_config"):
        return config
    return {**config, "quantization_config": {**side, "quant_method": "modelopt"}}
def apply_quantization(reading, config, dtype):
    raw = config.get("quantization_config") or config.get("compression_config")
    if not raw: return reading, None
    return reading, Quantization(method=str(raw.get("quant_method")), understood=False)
