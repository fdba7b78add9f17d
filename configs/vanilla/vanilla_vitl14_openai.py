"""The baseline on OpenAI's ViT-L/14; see vanilla_vitb16_openai.py.

python tools/test.py configs/vanilla/vanilla_vitl14_openai.py --benchmark voc20
"""

_base_ = "vanilla_vitb16_openai.py"

model = dict(weights="ViT-L-14/openai")
