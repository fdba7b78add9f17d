"""SCLIP (Wang et al., ECCV 2024) on OpenAI's ViT-L/14; see sclip_vitb16_openai.py.

python tools/test.py configs/sclip/sclip_vitl14_openai.py --benchmark voc20
"""

_base_ = "sclip_vitb16_openai.py"

model = dict(weights="ViT-L-14/openai")
