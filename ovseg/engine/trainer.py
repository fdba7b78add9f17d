"""MMEngine's runner with checkpoints that contain no code and resume exactly."""

from pathlib import Path

from mmengine.dist import master_only
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ovseg.registry import RUNNERS
from ovseg.results.provenance import checkpoint_weights
from ovseg.rng import random_states

from . import checkpoints
from .config import self_contained


@RUNNERS.register_module()
class Trainer(Runner):
    """A runner that writes and reads the checkpoints of ``ovseg.engine.checkpoints``.

    ``resume=True`` continues from the newest complete checkpoint of the work dir, or from ``load_from``; with the data
    of ``ovseg.datasets.seeded`` and ``TrainLoop`` the weights become those of a run that was never interrupted.
    """

    @property
    def bare_model(self) -> nn.Module:
        return self.model.module if is_model_wrapper(self.model) else self.model

    def build_logger(self, *args, **kwargs):
        """As in MMEngine, without its warning for every frozen parameter: ``ovseg train`` prints how many are
        trained."""
        logger = super().build_logger(*args, **kwargs)
        logger.addFilter(lambda record: "since its requires_grad=" not in record.getMessage())
        return logger

    @master_only
    def save_checkpoint(
        self, out_dir, filename, file_client_args=None, save_optimizer=True, save_param_scheduler=True, meta=None,
        by_epoch=True, backend_args=None,
    ):  # fmt: skip
        """As in the base class; ``file_client_args`` and ``backend_args`` are ignored."""
        model, path = self.bare_model, Path(out_dir) / filename
        content = {"state_dict": {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}}
        self.call_hook("before_save_checkpoint", checkpoint=content)  # where moving averages take their place
        iterations = (meta or {}).get("iter", self.iter if by_epoch else self.iter + 1)
        notes = dict(iterations=iterations, experiment=self.experiment_name, config=self_contained(self.cfg))
        if save_optimizer:
            keep = set(checkpoints.stored_names(model))
            averages = content.get("ema_state_dict", {})
            state = dict(
                iterations=iterations,
                epochs=(meta or {}).get("epoch", self.epoch + by_epoch),
                world_size=self.world_size,
                optimizer=self.optim_wrapper.state_dict(),
                param_schedulers=self._scheduler_states(),
                averages={k: v for k, v in averages.items() if k.removeprefix("module.") in keep or k == "steps"},
                random=random_states(),
                info={k: v for k, v in self.message_hub.runtime_info.items() if k.startswith(("best_", "keep_"))},
            )
            checkpoints.save_state(checkpoints.state_path(path), state)
        checkpoints.save_weights(path, model, content["state_dict"], notes)
        checkpoints.forget_orphans(out_dir)

    def load_checkpoint(self, filename, map_location="cpu", strict=False, revise_keys=()):
        """Load weights: those of a run, or the matching part of a file of another format.

        Raises:
            FileNotFoundError, ValueError: see ``checkpoints.load_weights``.
        """
        notes = checkpoints.load_weights(filename, self.bare_model)
        self.bare_model.trained_weights = checkpoint_weights(filename, notes["hash"])
        if notes["missing"] or notes["unexpected"]:
            self.logger.warning(
                f"{filename}: {len(notes['missing'])} tensors of the model are not in it "
                f"({', '.join(notes['missing'][:3])}), {len(notes['unexpected'])} of it are not in the model "
                f"({', '.join(notes['unexpected'][:3])})"
            )
        self.call_hook("after_load_checkpoint", checkpoint={"state_dict": self.bare_model.state_dict()})
        self._has_loaded = True
        return notes

    def resume(self, filename, resume_optimizer=True, resume_param_scheduler=True, map_location="default"):
        """Continue from a checkpoint.

        Raises:
            ValueError: a checkpoint without its state, or of another number of processes.
        """
        state = checkpoints.load_state(filename)
        if state["world_size"] != self.world_size:
            raise ValueError(
                f"{filename} was written by {state['world_size']} process(es), this run has {self.world_size}: batch "
                "and learning rate would change on the way. Resume with the same number, or start a new run from its "
                "weights (load_from)."
            )
        notes = checkpoints.load_weights(filename, self.bare_model)
        content = {"state_dict": dict(self.bare_model.state_dict())}
        if state["averages"]:
            content["ema_state_dict"] = state["averages"]
        self.call_hook("after_load_checkpoint", checkpoint=content)
        self.bare_model.load_state_dict(content["state_dict"])
        self.train_loop._iter, self.train_loop._epoch = state["iterations"], state["epochs"]
        self.train_loop.resumed = state["random"]
        for key, value in state["info"].items():
            best = value is not None and key.startswith("best_ckpt")
            self.message_hub.update_info(key, str(Path(self.work_dir) / value) if best else value)
        if resume_optimizer:
            self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
            self.optim_wrapper.load_state_dict(state["optimizer"])
        if resume_param_scheduler and self.param_schedulers is not None:
            self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
            for scheduler, stored in zip(self.param_schedulers, state["param_schedulers"], strict=True):
                own = scheduler.state_dict()
                scheduler.load_state_dict({key: value for key, value in stored.items() if key in own})
        self._has_loaded = True
        self.logger.info(f"resumed from {filename} after {state['iterations']} iterations")
        return notes

    def load_or_resume(self):
        if self._has_loaded:
            return
        source = self._load_from
        if self._resume:
            source = source or checkpoints.latest(self.work_dir)
            if source is None:
                self.logger.info(f"nothing to resume from in {self.work_dir}: starting anew")
                return
            self.resume(str(source))
        elif source is not None:
            self.load_checkpoint(source)

    def _scheduler_states(self) -> list[dict]:
        """States of the schedulers without MMEngine's class objects.

        Raises:
            ValueError: several groups of schedulers, which this runner does not support.
        """
        if isinstance(self.param_schedulers, dict):
            raise ValueError("Trainer keeps one list of param_scheduler; a dict of lists cannot be resumed from.")
        return [scheduler.state_dict() for scheduler in self.param_schedulers or ()]
