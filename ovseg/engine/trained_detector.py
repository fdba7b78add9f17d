"""Trained detectors as engines of ``ovseg.apis.Detector``: pictures and words apart, from a checkpoint alone."""

from dataclasses import dataclass, replace
from pathlib import Path

import mmdet.datasets.transforms  # noqa: F401 (registers the steps of pipelines)
import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

from ovseg.compat.checkpoint import read_checkpoint_with_meta
from ovseg.engine.checkpoints import check_fit, load_weights
from ovseg.engine.config import apply_overrides
from ovseg.engine.recorded_config import detector_config, say_tower
from ovseg.pictures.images import LoadedImage
from ovseg.predict.box_settings import BoxSettings
from ovseg.predict.detect import Found, encode_mask, leave_best
from ovseg.predict.protocol import digest
from ovseg.registry import LOADERS, MODELS, component_name
from ovseg.results.provenance import Provenance, checkpoint_weights
from ovseg.text.vocabulary import Vocabulary
from ovseg.threads import Turns
from ovseg.towers import Tower, load_tower

LEAVES = ("nms", "inside", "score_threshold", "max_detections")
"""Settings of ``BoxSettings`` that any detector has a use for."""


@dataclass
class EncodedInputs:
    """A picture as the model reads it, and what it has made of it.

    inputs    (1, 3, H', W') normalized and padded
    sample    its metainfo
    features  what ``extract_feat`` of the model returned
    source    the picture as it was read; None where only its pixels were given
    """

    inputs: Tensor
    sample: DetDataSample
    features: tuple[Tensor, ...]
    source: LoadedImage | None = None


@LOADERS.register_module()
class TrainedDetector:
    """What runs a trained detector: an MMDetection model with ``RuntimeClasses``.

    The heads of a model hold the words that they are compared with, so threads take turns there; the tower, which takes
    most of the time, runs for all of them at once.

    Args:
        path: a checkpoint of ``ovseg train``; its metadata holds the config.
        kind: the model that it has to be, such as ``FViT``.
        device: where to run.
        boxes: what is left of the detections, by its ``LEAVES``.
        tower: in place of the config's weights, which may lie elsewhere.
        **settings: changes to the model's config (``vlm=False``, ``beta=0.45``).

    Raises:
        FileNotFoundError: no checkpoint, or no weights of the tower.
        ValueError: a checkpoint of something else, or settings that the model does not have.
    """

    boxes = True
    box_settings = LEAVES

    def __init__(
        self,
        path: str | Path,
        kind: str,
        device: torch.device | str = "cpu",
        boxes: BoxSettings | None = None,
        tower: Tower | None = None,
        **settings,
    ):
        state, notes = read_checkpoint_with_meta(path)
        if "config" not in notes:
            raise ValueError(f"{path} holds no config: give a checkpoint that ovseg train wrote.")
        instead = settings | ({} if tower is None else {"weights": tower})
        model, steps = detector_config(notes["config"], Path(path).name, kind, instead)
        cfg = Config(dict(model=model, default_scope="ovseg"))
        apply_overrides(cfg, {f"model.{name}": value for name, value in settings.items()})
        for name in ("weights", "text_weights"):
            if name == "weights" and tower is not None:
                cfg.model.weights = tower
            elif name == "weights" or isinstance(cfg.model.get(name), str):
                cfg.model[name] = self._tower(name, cfg.model, path)
        with DefaultScope.overwrite_default_scope("ovseg"):
            with torch.device("meta"):  # so that sizes in the config cost no memory until they are checked
                check_fit(path, MODELS.build(cfg.model), state, notes)
            self.model = MODELS.build(cfg.model).to(device).eval()
        self.model.trained_weights = checkpoint_weights(path, load_weights(path, self.model)["hash"])
        self.prepare = Compose([TRANSFORMS.build(step) for step in steps])
        self.settings = boxes or BoxSettings()
        self._turns = Turns()

    @property
    def method(self) -> str:
        return component_name(type(self.model))

    @staticmethod
    def _tower(name: str, model: dict, path: str | Path) -> Tower:
        """The tower that a checkpoint names; from the hub only what is on this machine already."""
        source = model.get(name)
        say_tower(source, Path(path).name)
        offline = True if str(source).startswith("hf-hub:") else None
        options = {key: model[key] for key in ("arch", "quick_gelu") if key in model and name == "weights"}
        return load_tower(source, offline=offline, **options)

    def read(self, vocabulary: Vocabulary, progress=None) -> Vocabulary:
        """Encode a vocabulary, whose embeddings the model keeps.

        Raises:
            ValueError: words that the text tower cannot read.
        """
        with self._turns:
            self.model.set_classes(vocabulary)
        if progress:
            progress(len(set(vocabulary.prompts)))
        return vocabulary

    @torch.no_grad()
    def encode(self, image: np.ndarray) -> EncodedInputs:
        """Run the tower over one uint8 RGB picture (H, W, 3)."""
        size = image.shape[:2]
        about = dict(img_id=0, img_path=None, img_shape=size, ori_shape=size, flip=False, flip_direction=None)
        packed = self.prepare(dict(img=np.ascontiguousarray(image[..., ::-1]), **about))
        data = self.model.data_preprocessor(dict(inputs=[packed["inputs"]], data_samples=[packed["data_samples"]]))
        inputs, (sample,) = data["inputs"], data["data_samples"]
        return EncodedInputs(inputs, sample, self.model.extract_feat(inputs))

    @torch.no_grad()
    def decode(
        self,
        picture: EncodedInputs,
        words: Vocabulary,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        objectness: Tensor | None = None,
    ) -> Found:
        """Detections of the words.

        Args:
            picture, words: what ``encode`` and ``read`` returned.
            boxes: (R, 4) in pixels to choose from, in place of those of its proposal network (F-ViT).

        Raises:
            ValueError: masks or objectness, or boxes where the detector proposes its own.
        """
        sample = picture.sample.new(metainfo=picture.sample.metainfo)
        if masks is not None or objectness is not None or (boxes is not None and not self.model.takes_boxes):
            raise ValueError(
                f"{type(self.model).__name__} proposes its own regions: masks and objectness are for detection without "
                "training, boxes for that and for F-ViT."
            )
        if boxes is not None:
            given = boxes.float() * torch.tensor(sample.metainfo["scale_factor"]).float().repeat(2)
            sample.proposals = InstanceData(bboxes=given, scores=torch.ones(len(given))).to(picture.inputs.device)
        with self._turns:
            self.model.set_classes(words)
            (sample,) = self.model.predict(picture.inputs, [sample], features=picture.features)
        found = sample.pred_instances
        keep = leave_best(self.settings, found.bboxes, found.scores, found.labels)
        outlines = None
        if "masks" in found:
            masks = (np.asarray(mask.cpu()).astype(bool) for mask in found.masks[keep])
            outlines = [encode_mask(*pair) for pair in zip(masks, found.bboxes[keep], strict=True)]
        return Found(found.bboxes[keep].cpu(), found.scores[keep].cpu(), found.labels[keep].cpu(), outlines)

    def provenance(self, vocabulary) -> Provenance:
        """What its detections are made with, whatever the picture."""
        base, words = self.model.provenance, None if vocabulary is None else vocabulary.hash
        settings = dict(base.protocol, detections={name: getattr(self.settings, name) for name in LEAVES})
        return replace(base, protocol=settings, fingerprint=digest(settings), vocabulary_hash=words)
