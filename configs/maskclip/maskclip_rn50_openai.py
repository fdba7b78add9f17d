"""MaskCLIP (Zhou et al., ECCV 2022) on OpenAI's RN50; see maskclip_vitb16_openai.py.

python tools/test.py configs/maskclip/maskclip_rn50_openai.py --benchmark voc20
"""

_base_ = "maskclip_vitb16_openai.py"

model = dict(weights="RN50/openai")
