"""MaskCLIP (Zhou et al., ECCV 2022) on the embedded demo model; see maskclip_vitb16_openai.py.

python tools/test.py configs/maskclip/maskclip_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "maskclip_vitb16_openai.py"

model = dict(weights="tiny")
