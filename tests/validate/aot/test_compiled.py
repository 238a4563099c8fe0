"""Every kernel compiled for every target, in child processes: the compiler cannot share one with the interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "kvplan" / "validate" / "kernels" / "README.md"


def compiled(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, "-m", "kvplan.validate.aot", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.parametrize("target", ["sm_90", "sm_80", "sm_100", "gfx942"])
def test_every_kernel_passes_its_gates_and_the_page_says_what_it_is_made_of(target, tmp_path):
    result = compiled("--target", target, cache=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith(f"| {target}")]
    assert rows
    page = PAGE.read_text()
    missing = [row for row in rows if row not in page]
    assert not missing, "`python -m kvplan.validate.aot --page` rewrites the table; stale:\n" + "\n".join(missing)


def test_a_kernel_whose_rows_are_not_aligned_fails(tmp_path):
    """Keys of 100 numbers: rows start at odd multiples of 8 bytes, and the compiler falls back to narrow copies."""
    program = (
        "from kvplan.validate.aot.__main__ import judge\n"
        "from kvplan.validate.aot.cases import Case\n"
        "from kvplan.validate.aot.cases.decode import plan\n"
        "print(judge(Case('odd', plan(key_dim=100), key_bytes=400), 'sm_90').failures)\n"
    )
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    assert "fewer than 8 bytes" in result.stdout or "16-byte" in result.stdout, result.stdout


def test_the_interpreter_is_refused(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-m", "kvplan.validate.aot", "--target", "sm_90"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: TRITON_INTERPRET is set")
