"""NACLIP (Hajimiri et al., WACV 2025) on OpenAI's ViT-L/14; see naclip_vitb16_openai.py.

python tools/test.py configs/naclip/naclip_vitl14_openai.py --benchmark voc20
"""

_base_ = "naclip_vitb16_openai.py"

model = dict(weights="ViT-L-14/openai")
