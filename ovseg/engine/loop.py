"""A training loop that resumes exactly."""

from mmengine.runner.loops import IterBasedTrainLoop

from ovseg.registry import LOOPS
from ovseg.rng import random_states, set_random_states


@LOOPS.register_module()
class TrainLoop(IterBasedTrainLoop):
    """MMEngine's ``IterBasedTrainLoop``, with two differences: validation leaves the random states as they were, and a
    resumed run continues with those of its checkpoint.

    Attributes:
        resumed: random states to continue with, set by ``Trainer.resume``.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.resumed: dict | None = None

    def run(self):
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        if self._iter > 0:
            self.dataloader_iterator.skip_iter(self._iter)
        if self.resumed is not None:
            self.dataloader_iterator._ensure_iterator()  # making it draws a random number, as it did at the first start
            set_random_states(self.resumed)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            if self.runner.val_loop is not None and self._iter >= self.val_begin and self._due():
                states = random_states()
                self.runner.val_loop.run()
                set_random_states(states)
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _due(self) -> bool:
        return self._iter % self.val_interval == 0 or self._iter == self._max_iters
