"""Captions of composed scenes for models of MMDetection."""

import numpy as np
from mmcv.transforms import BaseTransform

from ovseg.registry import TRANSFORMS

from .scenes.captions import caption


@TRANSFORMS.register_module()
class CaptionFromLabels(BaseTransform):
    """A sentence that names the objects of a scene, drawn anew each time.

    Required keys: ``gt_bboxes_labels``, ``gt_ignore_flags``.
    Added keys: ``gt_caption``.
    """

    def transform(self, results: dict) -> dict:
        labels = results["gt_bboxes_labels"][~results["gt_ignore_flags"]]
        rng = np.random.default_rng(np.random.randint(2**31))
        results["gt_caption"] = caption(rng, list(dict.fromkeys(labels.tolist())))
        return results

    def __repr__(self):
        return "CaptionFromLabels()"
