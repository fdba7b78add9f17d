"""ResCLIP (Yang et al., CVPR 2025) on the embedded demo model; see resclip_vitb16_openai.py.

python tools/test.py configs/resclip/resclip_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "resclip_vitb16_openai.py"

model = dict(weights="tiny")
