"""A few steps of a training config."""

from pathlib import Path

from ovseg.engine.config import load_config
from ovseg.engine.trainer import Trainer

from .conftest import ROOT


def losses_of(config: str, folder: Path, steps: int) -> list[float]:
    """The total loss of each of the first steps, without validation."""
    cfg = load_config(ROOT / config)
    for key in ("val_dataloader", "val_evaluator", "val_cfg", "test_dataloader", "test_evaluator", "test_cfg"):
        cfg.pop(key, None)
    cfg.train_cfg = dict(type="TrainLoop", max_iters=steps)
    cfg.work_dir, cfg.log_level = str(folder), "ERROR"
    trainer = Trainer.from_cfg(cfg)
    step, losses = trainer.model.train_step, []

    def recorded(*args, **options):
        out = step(*args, **options)
        losses.append(float(out["loss"].detach()))
        return out

    trainer.model.train_step = recorded
    trainer.train()
    return losses
