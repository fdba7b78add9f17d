"""Several processes with and without GPUs."""

import torch
import torch.distributed as dist
from mmengine.config import Config


def start_processes(cfg: Config):
    """Choose the backend of a distributed run: NCCL on GPUs, which MMEngine sets up, gloo on CPUs.

    MMEngine requests a CUDA device for any backend and passes it to ``DistributedDataParallel``, so on a machine
    without one the process group and the wrapper's settings are created here, before the runner needs them.
    """
    if torch.cuda.is_available():
        cfg.env_cfg.dist_cfg.backend = "nccl"
    elif cfg.launcher == "pytorch":
        if not dist.is_initialized():
            dist.init_process_group("gloo")
        if "model_wrapper_cfg" not in cfg:
            unused = cfg.get("find_unused_parameters", False)
            cfg.model_wrapper_cfg = dict(
                type="MMDistributedDataParallel",
                device_ids=None,
                broadcast_buffers=False,
                find_unused_parameters=unused,
            )
