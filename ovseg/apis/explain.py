"""Why a picture matches a word: the parts of the cosine by block, head and place, and what a head looks for.

Gandelsman, Efros and Steinhardt, "Interpreting CLIP's Image Representation via Text-Based Decomposition", ICLR 2024.
The parts are those of ``ovseg.dense.decompose``; the names of heads come from the paper's TextSpan.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ovseg.dense import decompose
from ovseg.pictures.identity import PictureFile
from ovseg.pictures.images import LoadedImage, iter_sources, load_image
from ovseg.predict.resize import resize
from ovseg.results.draw import draw_grid
from ovseg.score import min_max
from ovseg.text.vocabulary import Vocabulary

from .load import load

Named = list[tuple[str, float]]
STOPS = (0.0, 0.35, 0.7, 1.0)
RAMP = ((70, 20, 110), (200, 55, 70), (250, 160, 30), (255, 250, 160))
"""Colors of a heat map at ``STOPS``: darker is less, also in gray print."""


@dataclass(frozen=True)
class Explanation:
    """The cosine of a picture with K classes, in parts.

    image       (H, W, 3) uint8 RGB
    vocabulary  the classes; ``words`` (K,) is the word of each that fits the picture best, the one that is explained
    cosine      (K,) of the image embedding with that word
    attention   (K, L, heads) what every head adds to it
    tokens      (K, 1 + h·w) the same by token, the class token first
    mlp         (K, L + 1) what the class token before the first block adds, then the feed-forward of every block
    scores      (K, h, w) what every patch adds, minus what it adds to the mean of all words
    picture     the file; None for pictures in memory
    """

    image: np.ndarray
    vocabulary: Vocabulary
    words: tuple[str, ...]
    cosine: np.ndarray
    attention: np.ndarray
    tokens: np.ndarray
    mlp: np.ndarray
    scores: np.ndarray
    picture: PictureFile | None = None

    @property
    def totals(self) -> np.ndarray:
        """(K,) the sums of all parts, which are the cosines up to rounding."""
        return self.attention.sum((1, 2)) + self.mlp.sum(1)

    @property
    def error(self) -> float:
        """Largest difference between a sum of parts and its cosine."""
        return float(np.abs(self.totals - self.cosine).max())

    def strongest(self, index: int, top: int = 5) -> list[tuple[int, int, float]]:
        """The heads that add most to class ``index``: (block, head, contribution), both counted from 0."""
        parts = self.attention[index]
        order = np.argsort(-parts, axis=None, kind="stable")[:top]
        return [
            (int(b), int(h), float(parts[b, h])) for b, h in zip(*np.unravel_index(order, parts.shape), strict=True)
        ]

    def heat(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Where the heads find more for class ``index`` than for the mean word: (H, W) in [0, 1], see ``heat_map``."""
        return heat_map(self.scores[index], size or self.image.shape[:2])

    def plot(self, most: int = 12) -> Image.Image:
        """The picture and the heat maps of its best classes, at most ``most`` of them, each with its cosine."""
        photo = Image.fromarray(self.image)
        photo.thumbnail((1024, 1024))
        gray = np.asarray(photo.convert("L"), dtype=np.float32)[..., None]
        panels: list[tuple[str, Image.Image]] = [("picture", photo)]
        for index in np.argsort(-self.cosine, kind="stable")[:most]:
            heat = self.heat(index, gray.shape[:2])
            color = np.stack([np.interp(heat, STOPS, channel) for channel in np.transpose(RAMP)], -1)
            alpha = heat[..., None] ** 0.5
            mixed = Image.fromarray(((1 - alpha) * 0.6 * gray + alpha * color).clip(0, 255).astype(np.uint8))
            panels.append((f"{self.vocabulary.names[index]} {self.cosine[index]:.3f}", mixed))
        return draw_grid(panels)

    def to_dict(self) -> dict[str, Any]:
        """All numbers but the heat maps, as JSON can hold them; blocks and heads in their order, from 0."""
        classes = [
            {
                "name": name,
                "word": self.words[i],
                "cosine": float(self.cosine[i]),
                "sum_of_parts": float(self.totals[i]),
                "attention": self.attention[i].tolist(),
                "attention_from_class_token": float(self.tokens[i, 0]),
                "attention_from_patches": float(self.tokens[i, 1:].sum()),
                "class_token_at_entry": float(self.mlp[i, 0]),
                "feed_forward": self.mlp[i, 1:].tolist(),
            }
            for i, name in enumerate(self.vocabulary.names)
        ]
        return {"largest_error_of_the_sums": self.error, "classes": classes}


class Explainer:
    """Takes the match of a picture with words apart.

    The whole picture is seen at once, without windows, resized to the method's short side of 224 pixels or to what
    suits the weights.  Any number of threads may share one.

    Args:
        weights, device, arch, quick_gelu, cache: as for ``load``; the weights are those of a ViT.
        **settings: ``short_side``, ``size`` or ``templates``, see ``ovseg.predict.Protocol``.

    Raises:
        ValueError: another setting; what ``load`` raises.
        FileNotFoundError: weights that are not here and cannot be fetched.
    """

    def __init__(
        self,
        weights: str | None = None,
        *,
        device: str = "auto",
        arch: str | None = None,
        quick_gelu: bool | None = None,
        cache: bool = True,
        **settings: Any,
    ):
        strange = sorted(set(settings) - {"short_side", "size", "templates"})
        if strange:
            raise ValueError(
                f"an explanation is of the whole picture and its settings are short_side, size and templates; "
                f"got {', '.join(strange)}."
            )
        self.model = load("clip_prs", weights, device=device, arch=arch, quick_gelu=quick_gelu, cache=cache, **settings)
        self.tower, self.protocol = self.model.pipeline.tower, self.model.pipeline.protocol
        self._encoded: tuple[tuple[str, ...], Tensor] | None = None

    @torch.inference_mode()
    def explain(self, image: Any, classes: Any) -> Explanation:
        """Contributions and heat maps of a picture (path, URL, PIL, RGB numpy array, tensor) for words.

        Raises:
            ValueError: fewer than two words, since heat maps are relative to the mean word; weights that are no ViT.
            ImageError: not a readable picture.
        """
        vocabulary = Vocabulary.parse(classes)
        if len(vocabulary.prompts) < 2:
            raise ValueError(
                f"a heat map shows where a word fits better than the mean of all words, and there is only "
                f"{vocabulary.prompts[0]!r}. Give at least one more word to compare it with, such as what surrounds it."
            )
        loaded = image if isinstance(image, LoadedImage) else load_image(image, **self.model.reading)
        text = self._text(vocabulary)
        parts = decompose(self.tower, self._pixels(loaded.array), text)
        cosine = (F.normalize(parts.embedding.float(), dim=-1) @ text.T)[0].cpu().numpy()
        best = _best_words(cosine, vocabulary.prompt_to_class)
        attn = parts.attn[0]
        tokens = attn.sum((0, 2))  # (N, T)
        scores = tokens[1:] - tokens[1:].mean(1, keepdim=True)
        return Explanation(
            image=loaded.array,
            vocabulary=vocabulary,
            words=tuple(vocabulary.prompts[i] for i in best),
            cosine=cosine[best],
            attention=attn.sum(1)[..., best].permute(2, 0, 1).cpu().numpy(),
            tokens=tokens[:, best].T.cpu().numpy(),
            mlp=parts.mlp[0][:, best].T.cpu().numpy(),
            scores=scores[:, best].T.unflatten(1, parts.grid).cpu().numpy(),
            picture=loaded.file,
        )

    @torch.inference_mode()
    def name_heads(self, images: Any, words: Any, top: int = 5, progress=None) -> list[list[Named]]:
        """What every head looks for, in words: TextSpan over what it adds to the embeddings of several pictures.

        Args:
            images: pictures, folders or patterns, as for ``Predictor``; the paper uses some thousands.
            words: candidates, anything ``Vocabulary.parse`` takes.
            top: words per head at most.
            progress: called with the number of pictures done so far.

        Returns:
            for every block and head: words with the share of the head's variance over the pictures that each explains.

        Raises:
            ValueError: fewer than two pictures.
            ImageError: a picture that cannot be read.
        """
        vocabulary, added = Vocabulary.parse(words), []
        for item in iter_sources(images):
            pixels = self._pixels(load_image(item, **self.model.reading).array)
            added.append(decompose(self.tower, pixels, tokens=False).attn[0, :, 0].cpu())
            if progress is not None:
                progress(len(added))
        if len(added) < 2:
            raise ValueError(
                "heads are named by what varies from picture to picture, so at least two pictures are needed (the "
                f"paper uses some thousands), got {len(added)}. Give a folder of pictures."
            )
        text = self._text(vocabulary).cpu()
        return [
            [text_span(torch.stack([one[b, h] for one in added]), text, vocabulary.prompts, top) for h in range(heads)]
            for b, heads in enumerate(block.heads for block in self.tower.blocks)
        ]

    def _text(self, vocabulary: Vocabulary) -> Tensor:
        """Unit embeddings of the words, kept while they stay the same."""
        encoded = self._encoded
        if encoded is None or encoded[0] != vocabulary.prompts:
            encoded = self._encoded = vocabulary.prompts, self.model.encoder(vocabulary.prompts)
        return encoded[1]

    def _pixels(self, image: np.ndarray) -> Tensor:
        """uint8 RGB (H, W, 3) → normalized (1, 3, H', W')."""
        return self.model.pipeline.normalized(resize(image, self.protocol))[None]


def explain(image: Any, classes: Any, weights: str | None = None, **options: Any) -> Explanation:
    """Why a picture matches words: an ``Explanation``.

    Arguments and errors are those of ``Explainer``.  For several pictures keep an ``Explainer``: it loads the weights
    once.
    """
    return Explainer(weights, **options).explain(image, classes)


def heat_map(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Centered scores (h, w) → (H, W) float32 in [0, 1]: enlarged bilinearly, negative ones dropped, stretched from the
    least to the largest.  A constant map is zero."""
    enlarged = F.interpolate(torch.from_numpy(scores)[None, None].float(), size, mode="bilinear", align_corners=False)
    rounding = 1e-5 * float(np.abs(scores).max())  # what enlarging leaves of a constant map
    return min_max(enlarged[0, 0].clamp(min=0), rounding).numpy()


def text_span(head_contributions: Tensor, text: Tensor, names: Sequence[str], top: int = 5) -> Named:
    """The paper's algorithm 1, TextSpan: words whose directions span what a head adds to image embeddings.

    Words are projected onto the span of the contributions.  Then, ``top`` times: take the word along which the
    contributions vary most, and remove its direction from the contributions and from all words.

    Args:
        head_contributions: (n, E) what the head adds, one row per picture.
        text: (T, E) candidates.
        names: their names, T of them.
        top: how many to take at most.

    Returns:
        (name, share of the variance that its direction takes away, in [0, 1]), in the order found; fewer than ``top``
        where nothing is left to explain, none where the contributions do not vary.

    Raises:
        ValueError: fewer than two pictures, shapes that do not match, ``top`` below one.
    """
    c, r = torch.as_tensor(head_contributions).double(), torch.as_tensor(text).double()
    if c.ndim != 2 or r.ndim != 2 or len(c) < 2 or c.shape[1] != r.shape[1] or len(r) != len(names) or top < 1:
        raise ValueError(
            "text_span takes contributions (n, E) of at least two pictures, words (T, E), T names and top of at least "
            f"1; got {tuple(c.shape)}, {tuple(r.shape)}, {len(names)} names and top={top}."
        )
    _, sizes, axes = torch.linalg.svd(c, full_matrices=False)
    axes = axes[sizes > 1e-6 * sizes[0]]  # contributions are float32: what is smaller is rounding
    everything = c.square().sum()
    c, r = c @ axes.T, r @ axes.T
    c = c - c.mean(0)
    total, longest = c.square().sum(), r.square().sum(1).amax()
    directions = []
    for _ in range(top if total > 1e-12 * everything else 0):
        used_up = r.square().sum(1) <= 1e-12 * longest  # a rest of that length is rounding, not a direction
        variance = (c @ r.T).square().sum(0).masked_fill(used_up, 0.0)
        best = int(variance.argmax())
        if variance[best] <= 1e-9 * total * longest:
            break
        direction = r[best] / r[best].norm()
        along = c @ direction
        directions.append((names[best], float(along.square().sum() / total)))
        c = c - along[:, None] * direction
        r = r - (r @ direction)[:, None] * direction
    return directions


def _best_words(cosine: np.ndarray, prompt_to_class: Sequence[int]) -> list[int]:
    """For every class, the index of its word with the largest cosine."""
    best: dict[int, int] = {}
    for word, index in enumerate(prompt_to_class):
        if index not in best or cosine[word] > cosine[best[index]]:
            best[index] = word
    return [best[index] for index in sorted(best)]
