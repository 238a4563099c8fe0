"""Which layers stand on which pipeline stage."""


def stage_bounds(num_layers: int, pp: int) -> list[tuple[int, int]]:
    """[start, stop) of each stage: ⌊L / pp⌋ layers each, the remainder to the last stages but the very last.

    126 layers over 4 stages: 31, 32, 32, 31; the last stage has the output head to carry.

    Source: vLLM 0.33, distributed/utils.py `get_pp_indices`
    """
    base, remainder = divmod(num_layers, pp)
    sizes = [base] * pp
    for i in range(remainder):
        sizes[pp - 2 - i] += 1
    bounds, start = [], 0
    for size in sizes:
        bounds.append((start, start + size))
        start += size
    return bounds
