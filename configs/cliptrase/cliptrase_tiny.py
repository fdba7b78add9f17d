"""CLIPtrase (Shao et al., ECCV 2024) on the embedded demo model; see cliptrase_vitb16_openai.py.

python tools/test.py configs/cliptrase/cliptrase_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "cliptrase_vitb16_openai.py"

model = dict(weights="tiny")
