"""ClearCLIP (Lan et al., ECCV 2024) on the embedded demo model; see clearclip_vitb16_openai.py.

python tools/test.py configs/clearclip/clearclip_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "clearclip_vitb16_openai.py"

model = dict(weights="tiny")
