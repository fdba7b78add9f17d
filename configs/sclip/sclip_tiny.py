"""SCLIP (Wang et al., ECCV 2024) on the embedded demo model; see sclip_vitb16_openai.py.

python tools/test.py configs/sclip/sclip_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "sclip_vitb16_openai.py"

model = dict(weights="tiny")
