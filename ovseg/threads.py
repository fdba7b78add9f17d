"""What several threads share a model for: values of one thread alone, and taking turns.

Neither belongs to what a model is: copies and pickles of models have their own, empty ones.
"""

import threading


class PerThread(threading.local):
    """An object whose attributes each thread sets and sees for itself."""

    def __reduce__(self):
        return PerThread, ()


class Turns:
    """A lock, ``with turns: …``: one thread after another."""

    def __init__(self):
        self._lock = threading.RLock()

    def __enter__(self) -> "Turns":
        self._lock.acquire()
        return self

    def __exit__(self, *error) -> None:
        self._lock.release()

    def __reduce__(self):
        return Turns, ()
