"""Writes stored.jsonl: the tensors that the schemes' own packages store for one matrix, by name, dtype and shape.

Needs torch, transformers, bitsandbytes, compressed-tensors, hqq, optimum-quanto, torchao, aqlm and nvidia-modelopt,
none of which kvplan needs:

    PYTHONPATH=… python tests/data/quantization/make_stored.py
"""

import json
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

OUT = Path(__file__).parent / "stored.jsonl"
SHAPES = ((384, 512), (1000, 256))
BF16 = torch.bfloat16
Row = tuple[str, dict[str, Any], Callable[[int, int], dict[str, torch.Tensor]]]


def linear(rows: int, columns: int) -> torch.nn.Linear:
    """A layer of the model's dtype."""
    torch.manual_seed(0)
    return torch.nn.Linear(columns, rows, bias=False, dtype=BF16)


def of_transformers() -> Iterator[Row]:
    """The modules that transformers puts in the place of linear layers."""
    from transformers.integrations.bitnet import BitLinear
    from transformers.integrations.eetq import EetqLinear
    from transformers.integrations.fbgemm_fp8 import FbgemmFp8Linear
    from transformers.integrations.finegrained_fp8 import FP8Linear

    block = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    yield "transformers", block, lambda r, c: FP8Linear(c, r, block_size=(128, 128)).state_dict()
    static = {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}
    yield "transformers", static, lambda r, c: FP8Linear(c, r, activation_scheme="static").state_dict()
    yield "transformers", {"quant_method": "fbgemm_fp8"}, lambda r, c: FbgemmFp8Linear(c, r, bias=False).state_dict()
    yield "transformers", {"quant_method": "eetq"}, lambda r, c: EetqLinear(c, r, dtype=torch.int8).state_dict()
    yield "transformers", {"quant_method": "bitnet"}, lambda r, c: BitLinear(c, r, False, dtype=BF16).state_dict()


def of_bitsandbytes() -> Iterator[Row]:
    """Layers quantised on the CPU."""
    import bitsandbytes as bnb

    for kind in ("nf4", "fp4"):
        for nested in (False, True):

            def four(r: int, c: int, kind: str = kind, nested: bool = nested) -> dict[str, torch.Tensor]:
                plain = linear(r, c)
                layer = bnb.nn.Linear4bit(c, r, bias=False, quant_type=kind, compress_statistics=nested)
                layer.weight = bnb.nn.Params4bit(
                    plain.weight.data, requires_grad=False, quant_type=kind, compress_statistics=nested
                )
                return layer.to("cpu").state_dict()

            config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
            yield "bitsandbytes", config | {"bnb_4bit_use_double_quant": nested}, four


def of_compressed_tensors() -> Iterator[Row]:
    """The compressor that each group of arguments selects."""
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme
    from compressed_tensors.quantization.lifecycle.initialize import initialize_module_for_quantization

    int8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    fp8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
    int4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128, "dynamic": False}
    fp4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16}
    mx4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "group", "group_size": 32}
    token = {"num_bits": 8, "symmetric": True, "strategy": "token", "dynamic": True}
    tensor = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False}
    cases: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [
        ("int-quantized", int8, token | {"type": "int"}),
        ("int-quantized", int8 | {"symmetric": False}, token | {"type": "int"}),
        ("float-quantized", fp8, token | {"type": "float"}),
        ("float-quantized", fp8 | {"strategy": "tensor"}, tensor),
        ("float-quantized", fp8 | {"strategy": "block", "block_structure": [128, 128]}, token | {"type": "float"}),
        ("pack-quantized", int4, None),
        ("pack-quantized", int4 | {"symmetric": False}, None),
        ("pack-quantized", int4 | {"group_size": 32}, None),
        ("pack-quantized", int8, None),
        ("nvfp4-pack-quantized", fp4, fp4 | {"dynamic": "local"}),
        ("nvfp4-pack-quantized", fp4, None),
        ("mxfp4-pack-quantized", mx4, None),
    ]
    for form, weights, inputs in cases:
        group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "format": form}

        def compressed(r: int, c: int, group: dict[str, Any] = group, form: str = form) -> dict[str, torch.Tensor]:
            layer = linear(r, c)
            scheme = QuantizationScheme(**{key: value for key, value in group.items() if key != "format"})
            initialize_module_for_quantization(layer, scheme, force_zero_point=False)
            for name, parameter in layer.named_parameters():
                if name != "weight":
                    parameter.data.fill_(1)
            compressor = BaseCompressor.get_value_from_registry(form)
            return compressor.compress(dict(layer.state_dict()), scheme)

        config = {"quant_method": "compressed-tensors", "version": "0.20.1", "format": form}
        yield "compressed-tensors", config | {"config_groups": {"group_0": group}}, compressed


def of_hqq() -> Iterator[Row]:
    """HQQ's layers as they encode themselves."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    for bits in (8, 4, 3, 2):

        def encoded(r: int, c: int, bits: int = bits) -> dict[str, torch.Tensor]:
            config = BaseQuantizeConfig(nbits=bits, group_size=64, axis=1)
            layer = HQQLinear(linear(r, c), config, compute_dtype=torch.float16, device="cpu")
            return layer.state_dict()

        yield "hqq", {"quant_method": "hqq", "nbits": bits, "group_size": 64}, encoded


def of_quanto() -> Iterator[Row]:
    """quanto's layers, frozen."""
    from optimum.quanto import freeze, qint4, qint8, quantize

    for name, kind in (("int8", qint8), ("int4", qint4)):

        def frozen(r: int, c: int, kind: Any = kind) -> dict[str, torch.Tensor]:
            model = torch.nn.Sequential(linear(r, c))
            quantize(model, weights=kind)
            freeze(model)
            return model.state_dict()

        yield "optimum-quanto", {"quant_method": "quanto", "weights": name}, frozen


def of_torchao() -> Iterator[Row]:
    """torchao's tensors, their inner tensors one by one."""
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    for config in (Int8WeightOnlyConfig(), Float8WeightOnlyConfig()):

        def inner(r: int, c: int, config: Any = config) -> dict[str, torch.Tensor]:
            layer = linear(r, c)
            quantize_(layer, config)
            names, _ = layer.weight.__tensor_flatten__()
            return {name: getattr(layer.weight, name) for name in names}

        stated = {"_type": type(config).__name__, "_data": {}}
        yield "torchao", {"quant_method": "torchao", "quant_type": {"default": stated}}, inner


def of_aqlm() -> Iterator[Row]:
    """AQLM's layer with one large codebook, and with two small ones."""
    from aqlm import QuantizedLinear

    for books, bits in ((1, 16), (2, 8)):

        def coded(r: int, c: int, books: int = books, bits: int = bits) -> dict[str, torch.Tensor]:
            return QuantizedLinear(c, r, 8, 1, books, bits, bias=False, dtype=BF16).state_dict()

        yield "aqlm", {"quant_method": "aqlm", "num_codebooks": books, "nbits_per_codebook": bits}, coded


def of_modelopt() -> Iterator[Row]:
    """modelopt's layers as they are exported, after a calibration on noise."""
    import modelopt.torch.quantization as mtq
    from modelopt.torch.export.unified_export_hf import _export_quantized_weight

    algorithms = {
        "FP8": "FP8_DEFAULT_CFG",
        "FP8_PER_CHANNEL_PER_TOKEN": "FP8_PER_CHANNEL_PER_TOKEN_CFG",
        "NVFP4": "NVFP4_DEFAULT_CFG",
        "MXFP8": "MXFP8_DEFAULT_CFG",
    }
    for algorithm, preset in algorithms.items():

        def exported(r: int, c: int, preset: str = preset) -> dict[str, torch.Tensor]:
            model = torch.nn.Sequential(linear(r, c))
            mtq.quantize(model, getattr(mtq, preset), lambda m: m(torch.randn(4, c, dtype=BF16)))
            _export_quantized_weight(model[0], BF16)
            return {name: tensor for name, tensor in model[0].state_dict().items() if "quantizer" not in name}

        yield "nvidia-modelopt", {"quant_method": "modelopt", "quant_algo": algorithm}, exported


def main() -> None:
    """Every case in both shapes, one line each."""
    makers = (
        of_transformers, of_bitsandbytes, of_compressed_tensors, of_hqq, of_quanto, of_torchao, of_aqlm, of_modelopt
    )  # fmt: skip
    lines = []
    for maker in makers:
        for package, config, make in maker():
            for rows, columns in SHAPES:
                try:
                    tensors = make(rows, columns)
                except Exception as error:
                    print(package, config, rows, columns, error)  # noqa: T201 (a shape that the package refuses)
                    continue
                lines.append(_line(package, config, rows, columns, tensors))
    OUT.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _line(package: str, config: dict[str, Any], rows: int, columns: int, tensors: dict[str, Any]) -> dict[str, Any]:
    stored = {
        name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
    }
    size = sum(
        tensor.numel() * tensor.element_size() for tensor in tensors.values() if isinstance(tensor, torch.Tensor)
    )
    return {
        "package": f"{package} {_version(package)}", "config": config, "rows": rows, "columns": columns,
        "bytes": size, "tensors": stored,
    }  # fmt: skip


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    main()
