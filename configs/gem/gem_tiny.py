"""GEM (Bousselham et al., CVPR 2024) on the embedded demo model; see gem_vitb16_openai.py.

python tools/test.py configs/gem/gem_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "gem_vitb16_openai.py"

model = dict(weights="tiny")
