"""ProxyCLIP (Lan et al., ECCV 2024) on LAION's ViT-H/14; see proxyclip_vitb16_openai.py.

python tools/test.py configs/proxyclip/proxyclip_vith14_laion.py --benchmark voc20
"""

_base_ = "proxyclip_vitb16_openai.py"

model = dict(weights="ViT-H-14/laion2b_s32b_b79k")
