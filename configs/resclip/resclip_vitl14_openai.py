"""ResCLIP (Yang et al., CVPR 2025) on OpenAI's ViT-L/14; see resclip_vitb16_openai.py.

python tools/test.py configs/resclip/resclip_vitl14_openai.py --benchmark voc20
"""

_base_ = "resclip_vitb16_openai.py"

model = dict(weights="ViT-L-14/openai")
