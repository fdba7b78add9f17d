"""The baseline on the embedded demo model; see vanilla_vitb16_openai.py.

python tools/test.py configs/vanilla/vanilla_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "vanilla_vitb16_openai.py"

model = dict(weights="tiny")
