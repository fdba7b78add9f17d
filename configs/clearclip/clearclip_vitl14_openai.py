"""ClearCLIP (Lan et al., ECCV 2024) on OpenAI's ViT-L/14; see clearclip_vitb16_openai.py.

python tools/test.py configs/clearclip/clearclip_vitl14_openai.py --benchmark voc20
"""

_base_ = "clearclip_vitb16_openai.py"

model = dict(weights="ViT-L-14/openai")
