"""Datasets under MMSegmentation's names and meanings, and the composed scenes.

The dataset classes need mmseg and are imported on first use: ``ovseg.datasets.VOC20``, or ``type='ovseg.VOC20'`` in a
config. ``ovseg.datasets.scenes`` and the table of benchmarks, ``ovseg.datasets.table``, work without mmseg.
"""

_HOMES = {
    **dict.fromkeys(
        ("VOC20", "VOC21", "Context59", "Context60", "COCOObject", "COCOStuff164k", "Cityscapes", "ADE20K"),
        "ovseg.datasets.segmentation_benchmarks",
    ),
    **dict.fromkeys(("CamVidMini", "COCOMini"), "ovseg.datasets.mini"),
    **dict.fromkeys(("ComposedScenes", "LoadScene", "META_KEYS"), "ovseg.datasets.composed"),
    **dict.fromkeys(("COCOMiniPhrases", "LoadScenePhrases", "PackPhrases", "ScenePhrases"), "ovseg.datasets.phrases"),
    **dict.fromkeys(
        ("COCOMiniBoxes", "LoadSceneBoxes", "LoadScenePicture", "OVCOCO", "SceneBoxes"), "ovseg.datasets.detection"
    ),
    **dict.fromkeys(("GroundingPhrases", "OVLVIS"), "ovseg.datasets.detection_benchmarks"),
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'ovseg.datasets' has no attribute {name!r}; it has {', '.join(__all__)}.")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
