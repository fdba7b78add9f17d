"""Scores: ``OpenVocabIoU`` (imports mmseg, on first use) and the confusion counts it is made of."""


def __getattr__(name: str):
    if name != "OpenVocabIoU":
        raise AttributeError(f"module 'ovseg.evaluation' has no attribute {name!r}; it has OpenVocabIoU.")
    from ovseg.evaluation.iou import OpenVocabIoU

    return OpenVocabIoU
