"""What configs of detection without training share; words and data come with the benchmark."""

_base_ = "runtime.py"

model = dict(type="OpenVocabDetector", weights="tiny", published=dict(), protocol=dict())
benchmarks = dict()
