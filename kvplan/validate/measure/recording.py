"""What a model does to its caches, written down as it runs, and done again to caches of ours.

In transformers every cache grows through methods whose names begin with `update`, or with `store` (DeepSeek V4): of
the cache, which calls its layers', or of a layer. Both are recorded, the outermost call only.

Source: transformers 5.23, cache_utils.py; models/deepseek_v4/modeling_deepseek_v4.py `DeepseekV4HCACache`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only


@dataclass(frozen=True)
class Call:
    """One call of one such method."""

    owner: Any
    """The cache, or a layer of one."""
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def handed_bytes(self) -> int:
        """Of the tensors among the arguments."""
        return sum(x.nbytes for x in tree_leaves((self.args, self.kwargs)) if isinstance(x, torch.Tensor))


@dataclass
class Recording:
    """How each cache was made, and every call that filled it, in order."""

    caches: dict[int, tuple[Any, tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)
    """By id: a cache, kept alive, and what it was made with."""
    calls: list[Call] = field(default_factory=list)
    depth: int = 0

    @contextmanager
    def running(self, roots: Sequence[type], made: type) -> Iterator[None]:
        """While this lasts, classes below `roots` write down their calls, and those below `made` their birth."""
        changed = []
        for kind in {kind for root in roots for kind in _with_subclasses(root)}:
            for name, method in list(vars(kind).items()):
                if name.startswith(("update", "store")) and callable(method):
                    changed.append((kind, name, method, self._noting_call(method)))
                elif name == "__init__" and issubclass(kind, made):
                    changed.append((kind, name, method, self._noting_birth(method)))
        try:
            for kind, name, _, noting in changed:
                setattr(kind, name, noting)
            yield
        finally:
            for kind, name, method, _ in changed:
                setattr(kind, name, method)

    def _noting_call(self, method: Any) -> Any:
        @wraps(method)
        def noting(owner: Any, *args: Any, **kwargs: Any) -> Any:
            if self.depth == 0:
                self.calls.append(Call(owner, method.__name__, args, kwargs))
            self.depth += 1
            try:
                return method(owner, *args, **kwargs)
            finally:
                self.depth -= 1

        return noting

    def _noting_birth(self, method: Any) -> Any:
        @wraps(method)
        def noting(cache: Any, *args: Any, **kwargs: Any) -> None:
            self.caches.setdefault(
                id(cache), (cache, args, kwargs)
            )  # a class calls its parent's __init__ after its own
            method(cache, *args, **kwargs)

        return noting


def _with_subclasses(kind: type) -> Iterator[type]:
    yield kind
    below: list[type] = type.__subclasses__(kind)
    for subclass in below:
        yield from _with_subclasses(subclass)


@dataclass
class Replay:
    """Caches made as the recorded ones were, on a device where tensors are real."""

    recording: Recording
    device: torch.device
    twins: dict[int, Any] = field(default_factory=dict)

    def run(self, call: Call) -> None:
        """The same call with zeros of the same shapes and types."""
        args, kwargs = tree_map_only(torch.Tensor, self._zeros, (call.args, call.kwargs))
        getattr(self.twin(call.owner), call.method)(*args, **kwargs)

    def _zeros(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=self.device)

    def twin(self, owner: Any) -> Any:
        """The cache or layer that stands for a recorded one. Raises LookupError for one that is not recorded."""
        if id(owner) in self.twins:
            return self.twins[id(owner)]
        caches = self.recording.caches
        if id(owner) in caches:
            _, args, kwargs = caches[id(owner)]
            inner = tuple(self.twin(one) if id(one) in caches else one for one in args)
            self.twins[id(owner)] = type(owner)(*inner, **kwargs)
            return self.twins[id(owner)]
        for cache, _, _ in caches.values():
            for index, layer in enumerate(getattr(cache, "layers", ())):
                if layer is owner:
                    return self.twin(cache).layers[index]
        raise LookupError(f"where a `{type(owner).__name__}` comes from is not recorded")
