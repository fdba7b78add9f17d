"""Several segmentors on the same images: each image is loaded once, and what they share of a tower runs once."""

from mmengine.model import BaseDataPreprocessor, BaseModel

from ovseg.predict.build import method_config
from ovseg.registry import MODELS
from ovseg.towers import load_tower
from ovseg.towers.shared import SharedTower


@MODELS.register_module()
class SideBySide(BaseModel):
    """``OpenVocabSegmentor`` models on one image after the other.

    Models of the same weights read one ``SharedTower``; every one gives exactly what it gives alone.

    Args:
        models: name → config of an ``OpenVocabSegmentor``.

    Raises:
        ValueError: what the models themselves raise.
    """

    def __init__(self, models: dict[str, dict]):
        super().__init__(data_preprocessor=BaseDataPreprocessor())
        self._towers: dict[tuple, SharedTower] = {}
        self._models = {name: MODELS.build(self._shared(cfg)) for name, cfg in models.items()}
        for index, model in enumerate(self._models.values()):
            self.add_module(str(index), model)  # names may hold dots, module names may not

    def _shared(self, cfg: dict) -> dict:
        """The config on a shared tower."""
        rest = {key: value for key, value in cfg.items() if key not in ("arch", "quick_gelu")}
        return rest | dict(weights=self._tower(cfg), dense=method_config(cfg["dense"], cfg.get("weights")))

    def _tower(self, cfg: dict) -> SharedTower:
        key = tuple(cfg.get(name) for name in ("weights", "arch", "quick_gelu"))
        if key not in self._towers:
            weights, arch, quick_gelu = key
            self._towers[key] = SharedTower(load_tower(weights, arch=arch, quick_gelu=quick_gelu))
        return self._towers[key]

    def forward(self, inputs, data_samples=None, mode: str = "predict") -> list[dict]:
        """Per image: model name → its ``SegDataSample``.

        Args:
            inputs: list of (3, H, W) uint8 BGR images.
            data_samples: one ``SegDataSample`` each.

        Raises:
            RuntimeError: another mode than ``predict``.
        """
        if mode != "predict":
            raise RuntimeError(
                f"SideBySide compares predictions and has no mode {mode!r}; train the models one by one."
            )
        predictions = []
        for picture, sample in zip(inputs, data_samples, strict=True):
            predictions.append(
                {name: model.predict([picture], [sample.clone()])[0] for name, model in self._models.items()}
            )
            for tower in self._towers.values():
                tower.clear()
        return predictions
