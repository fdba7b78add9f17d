"""One set of scores for each of several models that predicted the same images."""

from mmengine.evaluator import Evaluator

from ovseg.registry import EVALUATORS


@EVALUATORS.register_module()
class SideBySideEvaluator(Evaluator):
    """A separate evaluator per model; scores are named ``<model>/<score>``.

    Args:
        metrics: model name → config of its metric.
    """

    def __init__(self, metrics: dict[str, dict]):
        super().__init__([])
        self.evaluators = {name: Evaluator(metric) for name, metric in metrics.items()}

    @property
    def dataset_meta(self) -> dict | None:
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict):
        self._dataset_meta = meta
        for evaluator in self.evaluators.values():
            evaluator.dataset_meta = meta

    def process(self, data_samples, data_batch=None):
        """Samples as returned by ``SideBySide``: one mapping from model name to data sample per image."""
        for name, evaluator in self.evaluators.items():
            evaluator.process([sample[name] for sample in data_samples], data_batch)

    def evaluate(self, size: int) -> dict:
        scores = {name: evaluator.evaluate(size) for name, evaluator in self.evaluators.items()}
        return {f"{name}/{score}": value for name, of in scores.items() for score, value in of.items()}
