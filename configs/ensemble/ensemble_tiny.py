"""Ensemble on the embedded demo model, refined by PAMR among near neighbours; see ensemble_vitb16_openai.py.

python tools/test.py configs/ensemble/ensemble_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "ensemble_vitb16_openai.py"

model = dict(weights="tiny", protocol=dict(refine=[dict(type="PAMR", dilations=(1, 2, 4))]))
