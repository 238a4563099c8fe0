"""How a checkpoint stores its weights, read from `quantization_config` and applied to what a reader found."""

from kvplan.sources.quantization.read import SIDE_FILE, apply_quantization, with_side_file

__all__ = ["SIDE_FILE", "apply_quantization", "with_side_file"]
