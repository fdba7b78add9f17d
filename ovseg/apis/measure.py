"""How much memory a piece of work took, as far as the system reports it."""

import sys
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """How far memory rose above where it was, at its highest: ``with PeakMemory(device) as peak: …; peak.bytes``.

    CUDA     what tensors take on the device, exactly
    Linux    the process' resident memory, its high-water mark set back at the start.  Memory that the allocator kept
             from earlier work is used again without a trace, so this is a lower bound
    others   growth of the high-water mark since the process began: zero for whatever stays below an earlier peak;
             None where the system reports nothing

    Attributes:
        bytes: the rise in bytes, None before the end or where unknown.
        how: one sentence saying which of these it is.
    """

    def __init__(self, device: torch.device):
        self.device, self.bytes = device, None
        if device.type == "cuda":
            self.how = "highest memory of tensors on the device above that at the start of the method"
        elif self._resets():
            self.how = (
                "highest resident memory of the process above that at the start of the method; a lower bound, because "
                "memory kept from earlier methods is used again unseen"
            )
        else:
            self.how = (
                "growth of the highest resident memory since the process began; 0 where a method stays below an "
                "earlier peak"
            )

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start = torch.cuda.memory_allocated(self.device)
        elif self._resets():
            self._start = _status("VmRSS")
        else:
            self._start = _highest()
        return self

    def __exit__(self, *_):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            end = torch.cuda.max_memory_allocated(self.device)
        else:
            end = _status("VmHWM") if self._resets(False) else _highest()
        self.bytes = None if end is None or self._start is None else max(0, end - self._start)

    def _resets(self, reset: bool = True) -> bool:
        """Set the high-water mark back, on a Linux that lets us."""
        if reset:
            try:
                CLEAR.write_text("5")
                self._resettable = _status("VmHWM") is not None
            except OSError:
                self._resettable = False
        return self._resettable


def _status(name: str) -> int | None:
    """A line of Linux's status of this process, in bytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return None


def _highest() -> int | None:
    """Highest resident memory of this process in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
