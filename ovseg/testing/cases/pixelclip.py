"""PixelCLIP's training step: regions, their clusters, the merged masks, the head and its loss."""

import torch.nn.functional as F
from torch import Tensor

from ovseg.dense import DenseFeatures
from ovseg.score import CosineScore

from .common import Case, case, in_cases


@case(inputs=("*/cluster_embeddings", "*/teacher_feat", "*/student_feat", "*/gt_masks*"))
def trained_pixelclip(golden):
    return in_cases(golden, _one)


def _one(each: Case) -> dict[str, Tensor]:
    from ovseg.segmentors.conv_head import ConvHead
    from ovseg.segmentors.mask_clusters import assign, covered_loss, merged, region_means
    from ovseg.segmentors.sinkhorn import sinkhorn

    settings, clusters, arrays = each.settings, each.input("cluster_embeddings"), {}
    size, logits = tuple(settings["mask_res"]), None
    if each.has("student_feat") and each.weights:
        head = ConvHead.from_state(each.weights)
        student = each.input("student_feat").permute(0, 3, 1, 2)
        cosines = CosineScore()(DenseFeatures(student, student.mean((2, 3))), F.normalize(clusters, dim=-1))
        logits = head(cosines)
        arrays["head_out"] = logits.flatten(0, 1)[:, None]
    if each.has("teacher_feat", *(f"gt_masks{i}" for i in range(settings["B"]))):
        masks = [each.input(f"gt_masks{i}") for i in range(settings["B"])]
        regions = region_means(each.input("teacher_feat"), masks, size)
        affinity = arrays["assign_logits"] = assign(regions.means, clusters, settings["eps"])
        arrays["sinkhorn"] = sinkhorn(affinity.softmax(-1), settings["sinkhorn_iters"])
        target = merged(regions, arrays["sinkhorn"].argmax(1), len(clusters))
        arrays["target_label"] = target.byte()
        if logits is not None:
            arrays["loss"] = covered_loss(logits, target)
    return arrays
