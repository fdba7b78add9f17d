"""What every training config shares.

A run logs to <work-dir>/<time>/ (text and ``vis_data/scalars.json``, one line per point of the curves) and keeps its
two newest checkpoints, see ovseg/engine/checkpoints.py.
"""

_base_ = "runtime.py"

log_level = "INFO"
log_processor = dict(by_epoch=False)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="CheckpointHook", by_epoch=False, interval=200, max_keep_ckpts=2, filename_tmpl="iter_{}.safetensors"
    ),
)
custom_hooks = [dict(type="ProgressHook")]
optim_wrapper = dict(paramwise_cfg=dict(bypass_duplicate=True))  # an image tower is known as its own and as CLIP's
