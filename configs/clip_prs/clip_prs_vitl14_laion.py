"""clip_prs (Gandelsman et al., ICLR 2024) on LAION's ViT-L/14; see clip_prs_vitb16_laion.py.

python tools/test.py configs/clip_prs/clip_prs_vitl14_laion.py --benchmark voc20
"""

_base_ = "clip_prs_vitb16_laion.py"

model = dict(weights="ViT-L-14/laion2b_s32b_b82k")
