"""What every config shares: the runner's settings."""

default_scope = "ovseg"
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork"), dist_cfg=dict(backend="gloo"))
log_level = "WARNING"
randomness = dict(seed=0)
