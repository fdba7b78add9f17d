"""A progress bar for training and testing on a terminal."""

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.progress import Progress

from ovseg.progress import progress_bar
from ovseg.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows steps, loss, elapsed and remaining time on a terminal; silent if the output is a file."""

    priority = "LOW"

    def __init__(self):
        self.bar: Progress | None = None

    def before_train(self, runner):
        self._start(runner.max_iters, runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._advance(f"loss {outputs['loss'].item():.3f}")

    def after_train(self, runner):
        self._stop()

    def before_test(self, runner):
        self._start(len(runner.test_dataloader), 0)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._advance("")

    def after_test(self, runner):
        self._stop()

    def _start(self, total: int, done: int):
        self.bar = progress_bar(is_main_process())
        self.bar.start()
        self.task = self.bar.add_task("", total=total, completed=done)

    def _advance(self, text: str):
        if self.bar is not None:
            self.bar.update(self.task, advance=1, description=text)

    def _stop(self):
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
