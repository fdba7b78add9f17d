"""Mean-field inference in a conditional random field over neighborhoods.

    k(p, n) = w_b · exp(−|n|²/2θ_α² − ‖I(p) − I(p+n)‖²/2θ_β²) + w_s · exp(−|n|²/2θ_γ²)     0 < |n|_∞ ≤ radius
    Q ← softmax( U + Σ_n k(p, n) Q(p + n) )                                               steps times, Potts model

The energy is that of the fully connected CRF (Krähenbühl and Koltun, NeurIPS 2011), restricted to pairs at most
``radius`` apart, so that it becomes a sum over shifted maps (as in convolutional CRFs, Teichmann and Cipolla, BMVC
2019).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import REFINERS

from .base import LabelRefiner, Picture


@REFINERS.register_module()
class MeanFieldCRF(LabelRefiner):
    """Encourages nearby pixels of similar color to agree; U are the logits of the classes present in the label map.

    Args:
        steps: iterations.
        radius: half the side of the neighborhood, in pixels.
        bilateral, smooth: w_b and w_s, the total weight of a uniform neighborhood in units of logits.
        theta_alpha, theta_gamma: θ_α and θ_γ in pixels.
        theta_beta: θ_β in units of the normalized colors.

    Raises:
        ValueError: a negative number of steps, or a radius or width that is not positive.
    """

    name = "mean_field_crf"
    sees_image = True

    def __init__(
        self,
        steps: int = 5,
        radius: int = 5,
        bilateral: float = 4.0,
        smooth: float = 1.0,
        theta_alpha: float = 20.0,
        theta_beta: float = 0.25,
        theta_gamma: float = 3.0,
    ):
        super().__init__()
        if steps < 0 or radius < 1 or min(theta_alpha, theta_beta, theta_gamma) <= 0:
            raise ValueError("MeanFieldCRF: steps >= 0, radius >= 1 and positive widths theta_alpha, _beta, _gamma.")
        self.steps, self.radius = steps, radius
        self.bilateral, self.smooth = bilateral, smooth
        self.theta_alpha, self.theta_beta, self.theta_gamma = theta_alpha, theta_beta, theta_gamma

    def _shifted(self, maps: Tensor):
        """((dy, dx), maps at p + n (C, H, W)) of every neighbor; zero outside the image."""
        r, (height, width) = self.radius, maps.shape[-2:]
        padded = F.pad(maps, (r, r, r, r))
        for dy in range(2 * r + 1):
            for dx in range(2 * r + 1):
                if (dy, dx) != (r, r):
                    yield (dy - r, dx - r), padded[:, dy : dy + height, dx : dx + width]

    def kernel(self, image: Tensor) -> Tensor:
        """k (neighbors, H, W) of a normalized image (3, H, W); zero where the neighbor is outside the image."""
        inside = torch.ones_like(image[:1])
        weights = []
        for ((dy, dx), color), (_, known) in zip(self._shifted(image), self._shifted(inside), strict=True):
            square = float(dy * dy + dx * dx)
            near = torch.exp(
                -square / (2 * self.theta_alpha**2) - (color - image).square().sum(0) / (2 * self.theta_beta**2)
            )
            even = torch.exp(torch.tensor(-square / (2 * self.theta_gamma**2), device=image.device))
            weights.append((self.bilateral * near + self.smooth * even) * known[0])
        return torch.stack(weights) / len(weights)

    def relabel(self, labels: Tensor, picture: Picture) -> Tensor:
        classes = labels.unique()
        if len(classes) == 1:
            return labels
        if picture.image is None:
            raise ValueError("MeanFieldCRF compares colors: it needs the image of the Picture, which is None.")
        unary = picture.logits(classes.tolist())
        kernel, q = self.kernel(picture.image), unary.softmax(0)
        for _ in range(self.steps):
            message = torch.zeros_like(q)
            for weight, (_, neighbor) in zip(kernel, self._shifted(q), strict=True):
                message.addcmul_(weight[None], neighbor)
            q = (unary + message).softmax(0)
        return classes[q.argmax(0)]
