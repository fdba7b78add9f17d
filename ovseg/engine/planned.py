"""What the scores of a config are made with, known before anything is measured."""

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from ovseg.predict.protocol import digest
from ovseg.registry import MODELS
from ovseg.results.provenance import Provenance, checkpoint_weights, plain

from .checkpoints import load_weights


def provenance_of(model: nn.Module, cfg: Config) -> Provenance:
    """That of the model itself, or for a model without one, its config and checkpoint."""
    if hasattr(model, "provenance"):
        return model.provenance
    config = plain(cfg.model.to_dict())
    return Provenance(cfg.model.type, weights=getattr(model, "trained_weights", None), fingerprint=digest(config))


def planned(cfg: Config) -> Provenance:
    """Of a prepared config; weights are loaded, no image is."""
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "ovseg")):
        model = MODELS.build(cfg.model)
    if cfg.get("load_from"):
        model.trained_weights = checkpoint_weights(cfg.load_from, load_weights(cfg.load_from, model)["hash"])
    if "words" in cfg:
        model.set_classes(cfg.words)
    return provenance_of(model, cfg)
