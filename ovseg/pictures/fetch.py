"""Pictures behind an address: fetched in bounded time and size, by a thread that nobody has to wait for."""

import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from .errors import ImageError

MAX_DOWNLOAD = 256 * 2**20
"""Largest download, in bytes."""

TIMEOUT = 20.0
"""Seconds a server may stay silent."""

TOTAL_TIME = 60.0
"""Seconds that a download may take in all."""

CHUNK = 2**16


class Later:
    """The value of a function that a thread of its own is working out.

    The thread is a daemon, so that Ctrl-C, the end of a loop and the end of the program need not wait for it.
    """

    def __init__(self, function: Callable[[], Any]):
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(function,), daemon=True).start()

    def _run(self, function):
        try:
            self._answers.put((function(), None))
        except BaseException as error:  # raised again where the value is asked for
            self._answers.put((None, error))

    def result(self, timeout: float | None = None) -> Any:
        """The value, or the exception of the function.

        Raises:
            TimeoutError: it is not there after ``timeout`` seconds.
        """
        try:
            value, error = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if error is not None:
            raise error
        return value


def download(url: str) -> bytes:
    """What an http(s) address holds.

    Raises:
        ImageError: it cannot be fetched, is larger than ``MAX_DOWNLOAD``, or takes longer than ``TOTAL_TIME``.
    """
    end = time.monotonic() + TOTAL_TIME
    try:
        return Later(lambda: _fetch(url, end)).result(TOTAL_TIME)
    except TimeoutError:
        raise ImageError(
            f"could not fetch {url}: it was not all there after {TOTAL_TIME:g} seconds. Try again, or download the "
            "image and give its path."
        ) from None


def _fetch(url: str, end: float) -> bytes:
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "ovseg", "Accept": "image/*, */*;q=0.5"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            length, data = response.headers.get("Content-Length", ""), bytearray()
            while len(data) <= MAX_DOWNLOAD and time.monotonic() < end and (part := response.read1(CHUNK)):
                data += part
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        code = f"HTTP {error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise ImageError(
            f"could not fetch {url}: {code}{reason or type(error).__name__}. Check the address and the network, or "
            "download the image and give its path."
        ) from error
    if len(data) > MAX_DOWNLOAD:
        raise ImageError(
            f"the file at {url} is larger than {MAX_DOWNLOAD // 2**20} MiB, the most that is fetched. Download it and "
            "give its path."
        )
    if time.monotonic() >= end:
        raise TimeoutError
    if not data or (length.isdigit() and len(data) < int(length)):
        raise ImageError(f"the server of {url} sent {len(data)} of {length or '?'} bytes. Try again.")
    return bytes(data)
