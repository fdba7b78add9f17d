"""Training of CLIP-DINOiser's two convolutions (Wysoczańska et al., ECCV 2024); the tower is frozen.

C       correlations of the 3×3 convolution (``dense.clip_dinoiser``), T = ĥᵀ ĥ those of a teacher's value features h
L_corr  BCE-with-logits(max(C, 0), [T ≥ γ and T > 0]), mean over all pairs of patches
L_bkg   BCE-with-logits(b, [S > 0.5]), mean over patches, S a saliency map in [0, 1]
L       L_corr + L_bkg

A cosine serves as logit, so an entry costs at least log(1 + e⁻¹) = 0.313 where the teacher says yes and log 2 = 0.693
where it says no: L_corr converges to a plateau, not to 0.

The paper's teacher is DINO ViT-B/16 (``TimmValues``); its saliency is FOUND's, which must be supplied as files
(``LoadMaps``).  For images without a saliency map, we compute one from the teacher's features (``partition``).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.clip_dinoiser import Correlations
from ovseg.files import atomic_write
from ovseg.registry import MODELS, PROXIES
from ovseg.towers import Tower, load_tower

from .frozen_module import FrozenModule
from .trainable import TrainableSegmentor


def correlation_loss(raw: Tensor, teacher: Tensor, gamma: float) -> Tensor:
    """L_corr of correlations C (B, N, N) and the teacher's T (B, N, N)."""
    agree = (teacher >= gamma) & (teacher > 0)
    return F.binary_cross_entropy_with_logits(raw.clamp(min=0), agree.to(raw))


def saliency_loss(logits: Tensor, saliency: Tensor) -> Tensor:
    """L_bkg of logits b (B, 1, h, w) and S (B, 1, h, w) in [0, 1]."""
    return F.binary_cross_entropy_with_logits(logits, (saliency > 0.5).to(logits))


def partition(cosines: Tensor, least: float = 0.2) -> Tensor:
    """Segment the object of an image by a cut of its patches: (B, N) of 0 and 1, from cosines (B, N, N).

    The second smallest eigenvector of the normalized Laplacian of the graph whose edges are the pairs above ``least``
    splits the patches at its mean; the side with the largest magnitude is the object.  After TokenCut (Wang et
    al., CVPR 2022) [recalled]; using it in place of FOUND is our choice.
    """
    edges = (cosines > least).to(cosines).clamp(min=1e-5)
    root = edges.sum(-1).rsqrt()
    laplacian = torch.eye(edges.shape[-1]).to(edges) - root[:, :, None] * edges * root[:, None]
    cut = torch.linalg.eigh(laplacian)[1][..., 1] * root
    cut = cut - cut.mean(-1, keepdim=True)
    peak = cut.gather(1, cut.abs().argmax(1, keepdim=True))
    return (cut * peak > 0).to(cosines)


@MODELS.register_module()
class DinoiserTraining(TrainableSegmentor):
    """Trains the convolutions and predicts with them; ``export`` writes them in the authors' format.

    Args:
        dense: ``dict(type="CLIPDINOiser")``, with ``checkpoint`` to continue from existing convolutions; otherwise they
            are fresh.
        teacher: config of a proxy (``ovseg.dense.proxies``), or a proxy. None is the paper's, which timm downloads.
        weights, arch, quick_gelu, **parts: see ``TrainableSegmentor``.

    The tower is frozen, and its text side is only used in prediction.

    Samples may contain saliency maps as ``gt_saliency`` (1, H, W), from 0 to 255 or 0 to 1.
    """

    name = "clip_dinoiser"

    def __init__(self, dense: dict, *args, teacher=None, weights=None, arch=None, quick_gelu=None, **parts):
        tower = weights if isinstance(weights, Tower) else load_tower(weights, arch=arch, quick_gelu=quick_gelu)
        if not {"checkpoint", "correlations"} & dense.keys():
            dense = dict(dense, correlations=Correlations(tower.width))
        super().__init__(dense, *args, weights=tower, **parts)
        self.pipeline.dense.correlations.requires_grad_(True)
        teacher = teacher or dict(type="TimmValues", model="vit_base_patch16_224.dino")
        self.teacher = FrozenModule(PROXIES.build(dict(teacher)) if isinstance(teacher, dict) else teacher)

    def loss(self, inputs, data_samples) -> dict[str, Tensor]:
        dense, images = self.pipeline.dense, self.images(inputs)
        with torch.no_grad():
            state, padding = dense.start(self.tower, images)
            if any(padding):
                raise ValueError(
                    f"the crops are {tuple(images.shape[2:])} pixels, not whole patches of {self.tower.stride}: "
                    "choose a crop_size that is a multiple of it, such as 448."
                )
            state = self.tower.advance(state, -1, (*dense.taps, *self.teacher.taps))
            y = dense.extras(self.tower, state)["y"]
            teacher = F.interpolate(
                self.teacher(self.tower, images, state).float(), state.grid, mode="bilinear", align_corners=False
            )
            unit = F.normalize(teacher.flatten(2), dim=1)
            cosines = unit.transpose(1, 2) @ unit
            saliency = self.saliency(cosines, state.grid, data_samples)
        raw, background = dense.correlations(y), dense.correlations.background(y)
        losses = {
            "loss_correlation": correlation_loss(raw, cosines, dense.gamma or 0.0),
            "loss_background": saliency_loss(background, saliency),
        }
        return losses | self.penalties()

    @staticmethod
    def saliency(cosines: Tensor, grid: tuple[int, int], data_samples) -> Tensor:
        """S (B, 1, h, w): from the samples that contain one, from ``partition`` for the others."""
        maps = []
        for index, sample in enumerate(data_samples):
            if "gt_saliency" in sample:
                labeled = sample.gt_saliency.data.to(cosines)[None]
                labeled = labeled / 255 if labeled.max() > 1 else labeled
                maps.append(F.interpolate(labeled, grid, mode="bilinear", align_corners=False)[0])
            else:
                maps.append(partition(cosines[index : index + 1]).unflatten(1, grid))
        return torch.stack(maps)

    def export(self, path: str | Path):
        """Write the two convolutions in the format of the authors' file, for ``CLIPDINOiser(checkpoint=path)``."""
        state = {name: value.detach().cpu() for name, value in self.pipeline.dense.correlations.state_dict().items()}
        with atomic_write(path) as part:
            torch.save({"model_state_dict": state}, part)
