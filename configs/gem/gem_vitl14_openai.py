"""GEM (Bousselham et al., CVPR 2024) on OpenAI's ViT-L/14; see gem_vitb16_openai.py.

python tools/test.py configs/gem/gem_vitl14_openai.py --benchmark voc20
"""

_base_ = "gem_vitb16_openai.py"

model = dict(weights="ViT-L-14/openai")
