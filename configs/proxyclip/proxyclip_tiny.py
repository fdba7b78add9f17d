"""ProxyCLIP (Lan et al., ECCV 2024) on the embedded demo model; see proxyclip_vitb16_openai.py.

python tools/test.py configs/proxyclip/proxyclip_tiny.py --benchmark scenes_seen_v20

The proxy is the tower's own third block from the end, so that nothing is downloaded.
"""

_base_ = "proxyclip_vitb16_openai.py"

model = dict(weights="tiny", dense=dict(_delete_=True, type="ProxyCLIP"))
