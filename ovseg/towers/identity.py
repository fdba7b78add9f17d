"""What makes an embedding what it is: two towers of one identity embed every picture and every word alike.

Beside the tensors these are the activation, the numbers of heads, the pooling, epsilons, the context and the tokenizer
of the text, the grid of the position table, rotations and the normalization of pictures; the tensors tell none of them.
"""

import hashlib
import json
from dataclasses import asdict

from torch import nn

from .base import Tower

INERT = {"Identity", "Dropout", "PatchDropout", "DropPath"}  # leaves that change nothing in evaluation
NUMBERS = ("eps", "num_heads", "scale", "logit_scale_max")
CHOICES = ("pool_type", "global_pool", "final_ln_after_pool", "text_pool_type", "use_pad_mask", "no_causal_mask")


def identity(tower: Tower) -> str:
    """Hex digest of all that changes an embedding; empty for a tower whose card does not know its tensors."""
    if not tower.card.hash:
        return ""
    facts = {
        "tensors": tower.card.hash,
        "family": tower.family,
        "config": tower.recorded_config(),
        "table_grid": tower.table_grid,
        "visual": facts_of(tower.visual),
        "text": None if tower.clip is None else facts_of(tower.clip, without=tower.visual),
        "tokenizer": tower.card.tokenizer.facts,
        "preprocess": asdict(tower.preprocess),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def facts_of(module: nn.Module, without: nn.Module | None = None) -> dict:
    """What the tensors of a module do not say, as plain values: of each kind all that occur, sorted."""
    outside = set() if without is None else set(without.modules())
    modules = [each for each in module.modules() if each not in outside]
    leaves = [each for each in modules if not any(True for _ in each.children()) and not each._parameters]
    facts = {"activations": sorted({type(leaf).__name__ for leaf in leaves} - INERT)}
    for name in (*NUMBERS, *CHOICES):
        values = [getattr(each, name, None) for each in modules]
        facts[name] = sorted({str(value) for value in values if isinstance(value, (bool, int, float, str))})
    if without is not None:
        facts["context_length"] = getattr(module, "context_length", None)
        facts["causal"] = any(getattr(each, "attn_mask", None) is not None for each in modules)
    return facts
