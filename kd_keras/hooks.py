"""Change what a layer's `call` does, for the length of a forward pass and for one thread only.

That works alike for Functional, Sequential, nested and subclassed models, in either Keras, and the
layer is as it was when the pass is over.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def around_call(layer: Any, wrapper: Callable) -> Iterator[None]:
    """Let `wrapper(call, *args, **kwargs)` stand for the layer's `call(*args, **kwargs)`.

    MirroredStrategy traces its replicas in threads of their own that may take turns in the middle
    of a forward pass, so one hook serves all threads and goes when the last has left.
    """
    hook = layer.__dict__.get("call")
    if not hasattr(hook, "wrappers"):
        hook = _hook(layer)
        object.__setattr__(layer, "call", hook)
    thread = threading.get_ident()
    hook.wrappers.setdefault(thread, []).append(wrapper)
    try:
        yield
    finally:
        hook.wrappers[thread].remove(wrapper)
        if not any(hook.wrappers.values()):
            if hook.replaced is None:
                object.__delattr__(layer, "call")
            else:
                object.__setattr__(layer, "call", hook.replaced)


def _hook(layer: Any) -> Any:
    call = layer.call

    def hooked_call(*args: Any, **kwargs: Any) -> Any:
        run = call
        for wrapper in hooked_call.wrappers.get(threading.get_ident(), ()):  # type: ignore[attr-defined]
            run = functools.partial(wrapper, run)
        return run(*args, **kwargs)

    hooked_call.wrappers = {}  # type: ignore[attr-defined]
    hooked_call.replaced = layer.__dict__.get("call")  # type: ignore[attr-defined]
    return hooked_call
