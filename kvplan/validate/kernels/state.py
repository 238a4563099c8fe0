"""The fixed state of one layer of a hybrid model: a slot per sequence, in one allocation, beside `cache.PagedCache`.

Where a cache grows with every token, this never does: its bytes are slots × (recurrent state + columns of the
convolution), the tensors' own sizes without a byte between them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kvplan.validate.kernels.cache import carve
from kvplan.validate.kernels.launch import Unsupported
from kvplan.validate.kernels.linear import STATE_DTYPES

NO_SLOT = -1
HELD_DTYPES = (*STATE_DTYPES, torch.int64)
"""What may stand in a slot: numbers that kernels read, and identifiers of tokens."""


@dataclass
class StatePool:
    """Slots of one layer; what a layer does not have is None (LFM2 keeps only columns, MiniMax-01 only a state).

    recurrent S × H × (a head's state) · vectors S × (numbers beside it, e.g. xLSTM's normalisers), of its type ·
    conv S × C × N, the channels' places in memory outermost or innermost.
    """

    recurrent: Tensor | None
    conv: Tensor | None
    free_slots: list[int] = field(default_factory=list)
    vectors: Tensor | None = None

    @classmethod
    def allocate(
        cls,
        *,
        num_slots: int,
        device: torch.device | str,
        num_heads: int = 0,
        head_state: tuple[int, int] = (0, 0),
        state_dtype: torch.dtype = torch.float32,
        vector_elements: int = 0,
        channels: int = 0,
        columns: int = 0,
        conv_dtype: torch.dtype = torch.bfloat16,
        channels_innermost: bool = False,
        shuffle: random.Random | None = None,
    ) -> StatePool:
        """A zeroed pool of exactly the bytes that its shapes say.

        columns: as many as the framework holds, the taps of the convolution (transformers) or one fewer (vLLM, which
        also has channels innermost). `shuffle`: hand out slots in random order. Raises `Unsupported` for a dtype that
        no kernel reads.
        """
        for dtype in (state_dtype, conv_dtype):
            if dtype not in HELD_DTYPES:
                raise Unsupported(
                    f"no kernel reads a state of {dtype}; choose one of {', '.join(map(str, STATE_DTYPES))}"
                )
        row = (columns, channels) if channels_innermost else (channels, columns)
        shapes = [
            ((num_slots, num_heads, *head_state), state_dtype),
            ((num_slots, vector_elements), state_dtype),
            ((num_slots, *row), conv_dtype),
        ]
        recurrent, vectors, conv = (part if part.numel() else None for part in carve(shapes, device))
        if conv is not None and channels_innermost:
            conv = conv.transpose(1, 2)
        free = list(range(num_slots))[::-1]
        if shuffle is not None:
            shuffle.shuffle(free)
        return cls(recurrent, conv, free, vectors)

    @property
    def parts(self) -> list[Tensor]:
        """What there is."""
        return [part for part in (self.recurrent, self.vectors, self.conv) if part is not None]

    @property
    def storage_bytes(self) -> int:
        """Bytes of the pool as the framework holds them; the storage that the parts share counts once."""
        storages = [part.untyped_storage() for part in self.parts]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def take(self, num_seqs: int) -> list[int]:
        """Slots for so many new sequences, zeroed. Raises MemoryError when there are not enough."""
        if num_seqs > len(self.free_slots):
            raise MemoryError(f"{num_seqs} sequences begin, {len(self.free_slots)} slots are free")
        slots = [self.free_slots.pop() for _ in range(num_seqs)]
        for part in self.parts:
            part[slots] = 0
        return slots

    def give_back(self, slots: Sequence[int]) -> None:
        """Sequences have ended; their slots are free."""
        self.free_slots += [slot for slot in slots if slot != NO_SLOT]
