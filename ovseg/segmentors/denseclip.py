"""DenseCLIP: Language-Guided Dense Prediction with Context-Aware Prompting (Rao et al., CVPR 2022).

t   (K, C) text with learned contexts;   g, V = global embedding and map of the image, both in the space of the text
t' = t + γ ⊙ Δ(t, [g; V]),   Δ the context decoder, γ = 10⁻⁴ at first
s  = ⟨V/‖V‖, t'/‖t'‖⟩,   unscaled; K maps beside the channels of one level of the backbone, before the neck
L  = L_decode + 0.4·CE(s/τ, labels),   τ = 0.07

Closed vocabulary: the classes are those of the training labels.  Neck and decode head are any of MMSegmentation.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmseg.models.losses import accuracy
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn

from ovseg.predict.protocol import digest
from ovseg.registry import MODELS, component_name
from ovseg.results.provenance import RUNNING, Provenance, Weights, tower_weights
from ovseg.text.context import ContextTextEncoder, class_tokens
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers.positions import resize_positions

from .context_decoder import ContextDecoder

TABLES = ("backbone.positional_embedding", "backbone.attnpool.positional_embedding")


def pixel_text_score(text: Tensor, visual: Tensor) -> Tensor:
    """Cosines (B, K, h, w) of text (B, K, C) and a map (B, C, h, w)."""
    return torch.einsum("bchw,bkc->bkhw", F.normalize(visual, dim=1), F.normalize(text, dim=-1))


def score_loss(score: Tensor, labels: Tensor, tau: float = 0.07, ignore_index: int = 255) -> Tensor:
    """Mean cross entropy, over labeled pixels, of score/τ (B, K, h, w) enlarged to labels (B, H, W)."""
    logits = F.interpolate(score / tau, labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, labels.long(), ignore_index=ignore_index)


def beside(level: Tensor, score: Tensor) -> Tensor:
    """A level (B, D, h, w) with score maps appended to its channels, resized if necessary: (B, D + K, h, w)."""
    if level.shape[-2:] != score.shape[-2:]:
        score = F.interpolate(score, level.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([level, score], 1)


class Prompting(nn.Module):
    """t' and s of the equations above; ``text_encoder``, ``context_decoder``, ``contexts`` and ``gamma`` are its parts.

    A mix-in, so that its parameters are at the top level of the model, as in the released checkpoints.
    """

    trained_weights: Weights | None = None  # the checkpoint that was loaded

    def add_prompting(self, source: nn.Module, length: int, contexts: int, channels: int, decoder: dict, gamma: float):
        """Build the parts: ``source`` is a text tower, ``length`` N₁, ``contexts`` N₂, ``channels`` C."""
        self.text_encoder = ContextTextEncoder(source, length + contexts)
        self.contexts = nn.Parameter(torch.empty(1, contexts, self.text_encoder.width))
        nn.init.trunc_normal_(self.contexts, std=0.02)
        self.context_decoder = ContextDecoder(channels, **decoder)
        self.gamma = nn.Parameter(torch.full((channels,), float(gamma)))

    def prompt(self, tokens: Tensor, embedding: Tensor, visual: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """t (1, K, C), Δ (B, K, C), t' (B, K, C) and s (B, K, h, w) of tokens (K, N₁), g (B, C) and V (B, C, h, w)."""
        text = self.text_encoder(tokens, self.contexts)[None]
        context = torch.cat([embedding[:, None], visual.flatten(2).transpose(1, 2)], 1)
        change = self.context_decoder(text.expand(len(visual), -1, -1), context)
        prompted = text + self.gamma * change
        return text, change, prompted, pixel_text_score(prompted, visual)

    # --- of models with a CLIPBackbone whose last element is [global, map] -----------------------------------------

    def start_prompting(
        self,
        vocabulary,
        neck: Mapping,
        class_tokens: int,
        context_tokens: int,
        too_long: str,
        score_level: int | None,
        context_decoder: dict,
        gamma: float,
        heads: Mapping[str, int],
    ):
        """Build the parts for ``self.backbone``; arguments as for ``DenseCLIP``, ``heads`` maps heads to their class
        counts.

        Raises:
            ValueError: weights without a text tower, class names that are too long, or channels and class counts that
                do not fit.
        """
        self.vocabulary = Vocabulary.parse(vocabulary)
        self._check_classes(heads)
        self.score_level = (3 if self.backbone.has_stages else 2) if score_level is None else score_level
        self._check_channels(neck)
        tokens = self._tokens(class_tokens, context_tokens, too_long)
        self.register_buffer("tokens", tokens, persistent=False)
        clip = self.backbone.tower.clip
        self.add_prompting(clip, tokens.shape[1], context_tokens, self.backbone.embed_dim, context_decoder, gamma)
        self.register_load_state_dict_pre_hook(fit_checkpoint)

    def prompted_levels(self, inputs: Tensor, scale: float = 1.0) -> tuple[list[Tensor], Tensor]:
        """Levels of the backbone, with scale·s appended to ``score_level``, and s (B, K, h, w)."""
        *levels, (embedding, visual) = self.backbone(inputs)
        score = self.prompt(self.tokens, embedding, visual)[-1]
        levels[self.score_level] = beside(levels[self.score_level], scale * score)
        return levels, score

    @property
    def provenance(self) -> Provenance:
        """What predictions are made with: test settings, words, the weights it began with and those loaded."""
        protocol = dict(self.test_cfg or {})
        return Provenance(
            method=component_name(type(self)),
            weights=tower_weights(self.backbone.tower.card, self.trained_weights or RUNNING),
            vocabulary_hash=self.vocabulary.hash,
            protocol=protocol,
            fingerprint=digest(protocol),
        )

    def _tokens(self, length: int, contexts: int, too_long: str) -> Tensor:
        clip = self.backbone.tower.clip
        if clip is None:
            raise ValueError(
                "DenseCLIP encodes class names, and this tower has no text model; load whole CLIP weights."
            )
        return class_tokens(self.vocabulary.names, length, too_long, clip.context_length - contexts)

    def _check_classes(self, heads: Mapping[str, int]):
        classes = len(self.vocabulary)
        for head, number in heads.items():
            if number != classes:
                raise ValueError(
                    f"the vocabulary has {classes} classes and the {head} num_classes={number}; they are the same "
                    "labels, so write the same number."
                )

    def _check_channels(self, neck: Mapping):
        classes, wanted = len(self.vocabulary), list(self.backbone.channels)
        if not -len(wanted) <= self.score_level < len(wanted):
            raise ValueError(f"score_level={self.score_level}: the backbone has levels 0 to {len(wanted) - 1}.")
        wanted[self.score_level] += classes
        if list(neck.get("in_channels", wanted)) != wanted:
            raise ValueError(
                f"neck.in_channels is {list(neck['in_channels'])}, but with {classes} score maps at level "
                f"{self.score_level} this backbone gives {wanted}; write that."
            )


@MODELS.register_module()
class DenseCLIP(Prompting, EncoderDecoder):
    """An ``EncoderDecoder`` whose neck also gets the score map of each class.

    The text tower is frozen (its learning rate is 0 in the published recipe) unless a preset of the backbone's
    ``tuning`` covers the text side.

    Args:
        backbone: arguments of a ``CLIPBackbone`` of whole CLIP weights; [global, map] are asked of it, and it resizes
            positions and adds the class embedding as DenseCLIP's code does unless specified otherwise.
        decode_head: any decode head.
        vocabulary: the classes, anything ``Vocabulary.parse`` takes; each is encoded by its name.
        neck: any neck; level ``score_level`` of its ``in_channels`` has K channels more than the backbone's.
        auxiliary_head: see ``EncoderDecoder``.
        context_decoder: arguments of ``ContextDecoder``: width 256, heads 4, layers 3, dropout 0.1.
        class_tokens: N₁ with start and end.
        context_tokens: N₂.
        too_long: of class names that need more tokens, ``raise``, ``truncate`` or ``grow``.
        score_level: level that gets the score maps: 3 for a ResNet, 2 for a ViT (None: so), whose stride is the map's.
        gamma: initial γ.
        tau: τ.
        score_weight: weight of the loss on s.
        train_cfg, test_cfg, data_preprocessor, init_cfg: see ``EncoderDecoder``.

    Raises:
        ValueError: weights without a text tower, class names that are too long, or channels and class counts that do
            not match.
    """

    name = "denseclip"

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        vocabulary,
        neck: dict | None = None,
        auxiliary_head=None,
        context_decoder: dict | None = None,
        class_tokens: int = 5,
        context_tokens: int = 8,
        too_long: str = "raise",
        score_level: int | None = None,
        gamma: float = 1e-4,
        tau: float = 0.07,
        score_weight: float = 0.4,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor=None,
        init_cfg=None,
    ):
        own = dict(joint=True, positions="bilinear", class_token_twice=True)
        with MMSEG_MODELS.switch_scope_and_registry("mmseg"):  # heads and necks are MMSegmentation's in any scope
            super().__init__(
                backbone=own | dict(backbone, type="ovseg.CLIPBackbone"),
                decode_head=decode_head,
                neck=neck,
                auxiliary_head=auxiliary_head,
                train_cfg=train_cfg,
                test_cfg=test_cfg,
                data_preprocessor=data_preprocessor,
                init_cfg=init_cfg,
            )
        self.tau, self.score_weight = tau, score_weight
        self.start_prompting(
            vocabulary,
            neck or {},
            class_tokens,
            context_tokens,
            too_long,
            score_level,
            dict(context_decoder or {}),
            gamma,
            {"decode head": self.num_classes},
        )

    def extract_feat(self, inputs: Tensor):
        return self._features(inputs)[0]

    def predict(self, inputs: Tensor, data_samples=None):
        """As ``EncoderDecoder``, with ``provenance`` added to the metainfo of the samples."""
        predictions = super().predict(inputs, data_samples)
        for sample in predictions:
            sample.set_metainfo({"provenance": self.provenance})
        return predictions

    def loss(self, inputs: Tensor, data_samples) -> dict:
        """Losses of the heads, and ``score.loss_ce`` and ``score.acc_seg`` of the score maps."""
        x, score = self._features(inputs)
        losses = self._decode_head_forward_train(x, data_samples)
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(x, data_samples))
        labels = torch.cat([sample.gt_sem_seg.data for sample in data_samples])
        ignore = self.decode_head.ignore_index
        losses["score.loss_ce"] = self.score_weight * score_loss(score, labels, self.tau, ignore)
        enlarged = F.interpolate(score.detach(), labels.shape[-2:], mode="bilinear", align_corners=False)
        losses["score.acc_seg"] = accuracy(enlarged, labels, ignore_index=ignore)
        return losses

    def _features(self, inputs: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The inputs of the heads, and the score maps s (B, K, h, w)."""
        levels, score = self.prompted_levels(inputs)
        return (self.neck(levels) if self.with_neck else tuple(levels)), score


def fit_checkpoint(model: Prompting, state: dict, prefix: str, *_):
    """Before loading: resize position tables of another input size; any other mismatch is an error.

    Raises:
        ValueError: a tensor of another shape, or one that the model does not have, in a DenseCLIP file.
    """
    if not any(key.startswith(f"{prefix}context_decoder.") for key in state):
        return  # a backbone alone, or weights of another model: MMEngine reports what it finds
    own = model.state_dict(prefix=prefix)
    for name in (prefix + table for table in TABLES):
        stored, ours = state.get(name), own.get(name)
        if (
            stored is not None
            and ours is not None
            and stored.shape != ours.shape
            and stored.shape[1:] == ours.shape[1:]
        ):
            state[name] = resize_positions(stored, model.backbone.tower.table_grid, model.backbone.positions)
    surplus = [key for key in state if key not in own and not key.endswith(("num_batches_tracked", "attn_mask"))]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if surplus or shapes:
        problems = [f"{len(surplus)} unexpected ({', '.join(surplus[:3])})"] if surplus else []
        problems += [f"{len(shapes)} of another shape ({'; '.join(shapes[:3])})"] if shapes else []
        raise ValueError(
            f"this DenseCLIP checkpoint does not fit the model: {', '.join(problems)}. Give the config its backbone, "
            "classes and prompt length, or leave those tensors out of the file to start them afresh."
        )
