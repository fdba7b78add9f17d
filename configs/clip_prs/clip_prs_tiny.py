"""clip_prs (Gandelsman et al., ICLR 2024) on the embedded demo model; see clip_prs_vitb16_laion.py.

python tools/test.py configs/clip_prs/clip_prs_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "clip_prs_vitb16_laion.py"

model = dict(weights="tiny")
