"""Trident (Shi et al., ICCV 2025) on the embedded demo model; see trident_vitb16_openai.py.

    python tools/test.py configs/trident/trident_tiny.py --benchmark scenes_seen_v20

The windows are Trident's own, in the size that suits the model, and the picture reaches it whole.
"""

_base_ = "trident_vitb16_openai.py"

model = dict(weights="tiny", dense=dict(window=64, stride=32), protocol=dict(window=None))
