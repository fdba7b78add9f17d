"""CLIP Surgery (Li et al., 2023) on the embedded demo model; see clip_surgery_vitb16_openai.py.

python tools/test.py configs/clip_surgery/clip_surgery_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "clip_surgery_vitb16_openai.py"

model = dict(weights="tiny")
