"""FG-CLIP's losses on regions, versions 1 and 2."""

from ovseg.regions import fgclip

from .common import case

SCALES = ("log_scale_fine", "log_scale_hard", "cmr_threshold_in", "siglip_bias")
EMBEDDINGS = ("region_image_embeds", "region_text_embeds", "hard_image_embeds", "hard_text_embeds")


@case(inputs=SCALES + EMBEDDINGS)
def det_fgclip_losses(golden):
    """Whatever the arrays of a file allow: regions and hard regions are both optional."""
    inputs = {name: golden.input(name) for name in SCALES + EMBEDDINGS if name in golden.arrays}
    arrays, v1, v2 = {}, {}, {}
    if {"region_image_embeds", "region_text_embeds", "log_scale_fine"} <= inputs.keys():
        pair = inputs["region_image_embeds"], inputs["region_text_embeds"], inputs["log_scale_fine"]
        v1["region"] = v2["region"] = arrays["out/v1_region_contrastive"] = fgclip.region_contrast(*pair)
        if "siglip_bias" in inputs:
            arrays["out/v2_siglip_single_rank"] = fgclip.sigmoid_loss(*pair, inputs["siglip_bias"])
    if "region_text_embeds" in inputs:
        captions = fgclip.caption_contrast(inputs["region_text_embeds"])
        v2["captions"] = arrays["out/v2_region_text_text_rcc"] = captions
    if {"hard_image_embeds", "hard_text_embeds", "log_scale_hard"} <= inputs.keys():
        image = inputs["hard_image_embeds"]
        texts, scale = inputs["hard_text_embeds"].unflatten(0, (len(image), -1)), inputs["log_scale_hard"]
        v1["hard"] = arrays["out/v1_hard_negative"] = fgclip.hard_negatives(image, texts, scale)
        if "cmr_threshold_in" in inputs:
            hard = fgclip.hard_total(image, texts, scale, inputs["cmr_threshold_in"])
            v2["hard"] = arrays["out/v2_hard_total"] = hard.total
            arrays["out/v2_cmr_threshold_out"] = hard.threshold
    if len(v1) == 2:
        arrays["out/v1_weighted_sum"] = fgclip.weighted(fgclip.V1, **v1)
    if len(v2) == 3:
        arrays["out/v2_weighted_sum"] = fgclip.weighted(fgclip.V2, **v2)
    return arrays
