"""CorrCLIP (Zhang et al., ICCV 2025) as far as it needs no Segment Anything.

    python tools/test.py configs/corrclip/corrclip_vitb16_openai.py --benchmark voc20

The authors take masks of SAM2 and similarities of DINO; here masks are superpixels and the proxy is the tower's own
middle, so that nothing is downloaded: name others by dense=dict(masks=…, proxy=…).

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../proxyclip/proxyclip_vitb16_openai.py"

# The settings of the benchmarks are ProxyCLIP's, on which the method builds (inferred).
model = dict(dense=dict(_delete_=True, type="CorrCLIP"))
