"""A progress bar for training, where somebody looks."""

import sys

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ovseg.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Iterations done, loss, elapsed and remaining time on a terminal; nothing where the output is a file."""

    priority = "LOW"

    def __init__(self):
        self.bar: Progress | None = None

    def before_train(self, runner):
        if not (is_main_process() and sys.stderr.isatty()):
            return
        columns = BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"), TimeElapsedColumn()
        self.bar = Progress(*columns, TimeRemainingColumn(), transient=True)
        self.bar.start()
        self.task = self.bar.add_task("", total=runner.max_iters, completed=runner.iter, loss="")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.bar is not None:
            self.bar.update(self.task, completed=runner.iter + 1, loss=f"{float(outputs['loss']):.3f}")

    def after_train(self, runner):
        if self.bar is not None:
            self.bar.stop()
