"""How long a million points take: `kvplan.curve` over 1000 lengths × 1000 batch sizes.

python benchmarks/sweep.py [--runs 5]
"""

import argparse
import statistics
import time

import kvplan

MODELS = ("meta-llama/Llama-3.1-8B", "google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V3")


def main() -> None:
    """Time each model's sweep after one that is not counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    axis = list(range(1, 1001))
    for name in MODELS:
        model = kvplan.load_model(name)
        kvplan.curve(model, seq_lens=axis[:10], batch_sizes=axis[:10], gpu="H100")
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            frame = kvplan.curve(model, seq_lens=axis, batch_sizes=axis, gpu="H100")
            times.append(time.perf_counter() - start)
        print(
            f"{name:<26} {len(frame):,} points: median {statistics.median(times):.2f} s   "
            f"min {min(times):.2f}   max {max(times):.2f}   (n = {runs})"
        )


if __name__ == "__main__":
    main()
