"""NACLIP (Hajimiri et al., WACV 2025) on the embedded demo model; see naclip_vitb16_openai.py.

python tools/test.py configs/naclip/naclip_tiny.py --benchmark scenes_seen_v20
"""

_base_ = "naclip_vitb16_openai.py"

model = dict(weights="tiny")
