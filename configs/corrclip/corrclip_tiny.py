"""CorrCLIP (Zhang et al., ICCV 2025) on the embedded demo model; see corrclip_vitb16_openai.py.

python tools/test.py configs/corrclip/corrclip_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "corrclip_vitb16_openai.py"

model = dict(weights="tiny")
