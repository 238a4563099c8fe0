"""A cold start stays light: what the catalog path may never import."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch", "triton", "transformers", "numpy", "pandas", "matplotlib", "huggingface_hub", "httpx", "requests",
    "pydantic", "pydantic_core", "jsonschema", "rich", "yaml", "typing_extensions", "importlib.metadata",
}  # fmt: skip

COMMANDS = {
    "help": ["--help"],
    "version": ["--version"],
    "estimate": ["estimate", "meta-llama/Llama-2-70b", "--gpu", "H100", "--gpus", "8"],
    "estimate as JSON": ["estimate", "meta-llama/Llama-2-70b", "--json"],
    "estimate as CSV": ["estimate", "meta-llama/Llama-2-70b", "--format", "csv"],
    "fit": ["fit", "Qwen/Qwen3-8B", "--gpu", "H100"],
    "fit as JSON": ["fit", "Qwen/Qwen3-8B", "--gpu", "H100", "--json"],
    "serve-check": ["serve-check", "vllm serve Qwen/Qwen3-8B", "--gpu", "H100"],
    "inspect": ["inspect", "meta-llama/Llama-2-70b", "--json"],
    "models": ["models"],
    "gpus": ["gpus"],
    "explain": ["explain", "tests/data/logs/vllm-0.19-codellama-7b.log", "--offline"],
    "json schema": ["estimate", "--json-schema"],
}

PROGRAM = """
import json, sys
from kvplan.cli import cli
try:
    cli(sys.argv[1:], prog_name="kvplan")
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("args", COMMANDS.values(), ids=COMMANDS)
def test_no_heavy_module_is_imported(args: list[str]) -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM, *args], capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    loaded = set(json.loads(run.stderr.splitlines()[-1]))
    assert not loaded & HEAVY


def test_import_kvplan_costs_nothing() -> None:
    program = "import sys, kvplan; print(*sorted(name for name in sys.modules if name.startswith('kvplan')))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["kvplan", "kvplan._version"]
