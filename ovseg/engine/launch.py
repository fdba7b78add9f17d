"""Several processes with and without GPUs."""

import torch
import torch.distributed as dist
from mmengine.config import Config


def start_processes(cfg: Config):
    """Choose the backend of a distributed run: NCCL on GPUs, which MMEngine sets up, gloo on CPUs.

    MMEngine asks for a CUDA device whatever the backend, so on a machine without one the group is made here, before the
    runner looks for it.
    """
    if torch.cuda.is_available():
        cfg.env_cfg.dist_cfg.backend = "nccl"
    elif cfg.launcher == "pytorch" and not dist.is_initialized():
        dist.init_process_group("gloo")
