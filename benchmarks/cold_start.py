"""How long a cold `kvplan estimate … --json` takes as a whole process, beside the imports it cannot avoid.

    python benchmarks/cold_start.py [--runs 15]

Both commands run in turn, so that a machine whose speed drifts slows both; the ratio is taken pair by pair.
"""

import argparse
import statistics
import subprocess
import sys
import time

ESTIMATE = [sys.executable, "-m", "kvplan", "estimate", "meta-llama/Llama-2-70b", "--seq", "4096", "--json"]
FLOOR = [sys.executable, "-c", "import click, pydantic"]
TARGET = 2.5


def seconds(command: list[str]) -> float:
    """Wall time of one run of a process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Run the pairs and print medians and the ratio's spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    seconds(ESTIMATE), seconds(FLOOR)  # warm the file cache and the bytecode
    pairs = [(seconds(ESTIMATE), seconds(FLOOR)) for _ in range(runs)]
    report("kvplan estimate --json", [1000 * ours for ours, _ in pairs], "ms")
    report("import click, pydantic", [1000 * floor for _, floor in pairs], "ms")
    report("ratio", [ours / floor for ours, floor in pairs], f"(target at most {TARGET}, n = {runs})")


def report(name: str, figures: list[float], unit: str) -> None:
    """One line: median, least, most."""
    median = statistics.median(figures)
    print(f"{name:<24} median {median:7.2f}   min {min(figures):7.2f}   max {max(figures):7.2f} {unit}")


if __name__ == "__main__":
    main()
