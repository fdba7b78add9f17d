"""PixelCLIP: Towards Open-Vocabulary Semantic Segmentation Without Semantic Labels (Shin et al., NeurIPS 2024).

A CLIP image tower learns from masks without class labels; the result is a plain CLIP.

teacher   θ' ← α θ' + (1 − α) θ, α = 0.999; its features give the means of the masks   (``momentum``)
classes   K = 64 learned names, through the frozen text tower                        (``pseudo_words``)
target    masks → pseudo classes by Sinkhorn, merged per image                       (``mask_clusters``, ``sinkhorn``)
student   cosines with the names → ConvHead → BCE over the pixels inside any mask    (``conv_head``)

Attention and positions of the image tower, the names and the head are trained.  The names get gradients from the
student's cosines only.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import MODELS, PROXIES
from ovseg.score import CosineScore
from ovseg.towers.export import save_tower

from .conv_head import ConvHead
from .frozen_module import FrozenModule
from .mask_clusters import assign, covered_loss, masks_of_ids, merged, proxy_clusters, region_means
from .momentum import Momentum
from .pseudo_words import PseudoWords
from .sinkhorn import sinkhorn
from .trainable import TrainableSegmentor

TUNING = (dict(type="Attention", towers=("visual",)), dict(type="Positions", towers=("visual",)))


@MODELS.register_module()
class PixelCLIPTraining(TrainableSegmentor):
    """Trains the image tower; ``export`` writes it as plain CLIP weights.

    Samples contain masks as ``gt_regions`` (S, H, W), S layers of region ids with 0 for none
    (``datasets.masks``), and the student's view of the image as ``student_view`` (3, H, W), without which it gets
    the teacher's view.

    Args:
        dense: config of the extractor, ``dict(type="PixelCLIP")``.
        clusters, tokens, template: K, tokens per name, and the prompt around them.
        scale: ε of the logits before Sinkhorn; 100 for a ViT, 1 for a ConvNeXt.
        iterations: of Sinkhorn.
        decay: α.
        resolution: side in pixels to which images are resized for both towers; None: not resized.
        mask_size: side at which masks are compared.
        proxy: for samples without masks, use ``proxy_masks`` clusters of this proxy's features
            (``ovseg.dense.proxies``); None: samples must contain masks.
        proxy_masks: per image.
        seed: of the first names.
        tuning, **parts: see ``TrainableSegmentor``.
    """

    name = "pixelclip"

    def __init__(
        self,
        *args,
        clusters: int = 64,
        tokens: int = 4,
        template: str = "A photo of a {} in the scene",
        scale: float = 100.0,
        iterations: int = 3,
        decay: float = 0.999,
        resolution: int | None = None,
        mask_size: int = 256,
        proxy=None,
        proxy_masks: int = 16,
        seed: int = 0,
        tuning=TUNING,
        **parts,
    ):
        super().__init__(*args, tuning=tuning, **parts)
        self.names = PseudoWords(self.tower, clusters, tokens, template, seed)
        self.head = ConvHead()
        self.momentum = Momentum(self.tower, decay, prefix="visual.")
        proxy = PROXIES.build(dict(proxy)) if isinstance(proxy, dict) else proxy
        self.proxy = None if proxy is None else FrozenModule(proxy)
        self.proxy_masks, self.scale, self.iterations = proxy_masks, scale, iterations
        self.resolution, self.mask_size = resolution, (mask_size, mask_size)

    def loss(self, inputs, data_samples) -> dict[str, Tensor]:
        views = [s.student_view.data if "student_view" in s else x for s, x in zip(data_samples, inputs, strict=True)]
        teacher, student = self._resized(self.images(inputs)), self._resized(self.images(views))
        self.momentum.update(self.tower)
        features = self.momentum.evaluate(self.tower, lambda tower, x: self.dense_features(x), teacher).features
        classes = self.names(self.tower)
        regions = region_means(features, self.masks(teacher, data_samples), self.mask_size)
        affinity = assign(regions.means, classes.detach(), self.scale).float().softmax(-1)
        shares = sinkhorn(affinity, self.iterations)
        target = merged(regions, shares.argmax(1), len(classes))
        logits = self.head(CosineScore()(self.dense_features(student), F.normalize(classes, dim=-1)))
        return {"loss_mask": covered_loss(logits, target)} | self.penalties()

    def _resized(self, images: Tensor) -> Tensor:
        if self.resolution is None:
            return images
        return F.interpolate(images, (self.resolution, self.resolution), mode="bilinear", align_corners=False)

    @torch.no_grad()
    def masks(self, images: Tensor, data_samples) -> list[Tensor]:
        """Masks (R_i, H', W') of every image at ``mask_size``: the sample's own, or clusters of the proxy.

        Raises:
            ValueError: a sample brings none, and there is no proxy.
        """
        missing = [index for index, sample in enumerate(data_samples) if "gt_regions" not in sample]
        layers = [sample.gt_regions.data if "gt_regions" in sample else None for sample in data_samples]
        if missing and self.proxy is None:
            raise ValueError(
                "PixelCLIP learns from masks, but a sample has none: put dict(type='LoadMaps', folder='…') or "
                "dict(type='MakeRegions', source=dict(type='Superpixels')) into the pipeline and end it with "
                "dict(type='PackMapInputs', fields=('gt_regions',)); or give the model a proxy=dict(type='TowerProxy')."
            )
        if missing:
            features = self.momentum.evaluate(self.tower, self._proxy_features, images[missing])
            for index, feature in zip(missing, features, strict=True):
                layers[index] = proxy_clusters(feature, self.proxy_masks)[None] + 1
        return [masks_of_ids(each.to(images.device), self.mask_size) for each in layers]

    def _proxy_features(self, tower, images: Tensor) -> Tensor:
        state, _ = self.pipeline.dense.start(tower, images)
        return self.proxy(tower, images, tower.advance(state, -1, self.proxy.taps))

    def export(self, path: str | Path):
        """Write the student as CLIP weights in OpenAI's names, for ``weights=path``; the text tower is unchanged."""
        save_tower(self.tower, path, Path(path).stem)
