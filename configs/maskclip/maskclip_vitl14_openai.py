"""MaskCLIP (Zhou et al., ECCV 2022) on OpenAI's ViT-L/14; see maskclip_vitb16_openai.py.

python tools/test.py configs/maskclip/maskclip_vitl14_openai.py --benchmark voc20
"""

_base_ = "maskclip_vitb16_openai.py"

model = dict(weights="ViT-L-14/openai")
