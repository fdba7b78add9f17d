"""Which tokenizer weights read words with: CLIP's byte pairs, or one of Hugging Face that their config names.

The rule is open_clip's: a ``text_cfg`` with ``hf_tokenizer_name`` wants that one, any other CLIP's.  The files of a
folder come before the name; a name is fetched only if one of open_clip's own architectures has it, or if it is the
repository that the weights come from.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import open_clip
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model", "tokenizer.model",
         "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")  # fmt: skip
ENOUGH = ("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
CONTEXT = 77  # of configs that do not say


@dataclass(frozen=True)
class TokenizerRecord:
    """A tokenizer, not made yet.

    name      repository on the hub; empty: CLIP's byte pairs
    context   tokens of a prompt, start and end included; None: those of the text tower
    mode      open_clip's ``tokenizer_mode``
    options   open_clip's ``tokenizer_kwargs``
    folder    where its files lie; None: in the hub's cache, or on the hub
    digest    of those files
    """

    name: str = ""
    context: int | None = None
    mode: str | None = None
    options: tuple[tuple[str, str | bool], ...] = ()
    folder: Path | None = None
    digest: str = ""

    @property
    def facts(self) -> list:
        """What changes token ids, as plain values; where the files lie does not."""
        return [self.name, self.context, self.mode, [list(option) for option in self.options], self.digest]

    def __str__(self) -> str:
        return self.name or "CLIP's byte pairs"


def tokenizer_record(text_cfg: Mapping, folder: Path | None = None, repository: str = "") -> TokenizerRecord:
    """The tokenizer of an open_clip ``text_cfg``.

    Args:
        text_cfg: of weights.
        folder: the weights' own, where the tokenizer's files may lie.
        repository: the hub's, from which the weights come.

    Raises:
        ValueError: a tokenizer that is not in the folder and that open_clip does not know.
    """
    name = text_cfg.get("hf_tokenizer_name") or ""
    options = tuple(sorted((text_cfg.get("tokenizer_kwargs") or {}).items()))
    context = text_cfg.get("context_length", CONTEXT)
    if not name:
        return TokenizerRecord("", context, None, options)
    own = folder is not None and any((folder / file).is_file() for file in ENOUGH)
    if not own and name != repository and name not in known_tokenizers():
        raise ValueError(
            f"these weights read words with the tokenizer {name!r}, which is neither in their folder nor one of "
            "open_clip's. Put its files (tokenizer.json and others) beside the weights."
        )
    digest = _digest(folder) if own else ""
    return TokenizerRecord(name, context, text_cfg.get("tokenizer_mode"), options, folder if own else None, digest)


def known_tokenizers() -> frozenset[str]:
    """Tokenizers that open_clip's own architectures name."""
    configs = (open_clip.get_model_config(name)["text_cfg"] for name in open_clip.list_models())
    return frozenset(name for config in configs if (name := config.get("hf_tokenizer_name")))


def _digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for name in FILES:
        if (folder / name).is_file():
            whole.update(name.encode() + hashlib.sha256((folder / name).read_bytes()).digest())
    return whole.hexdigest()


def require_tokenizer(record: TokenizerRecord, weights: str):
    """Refuse weights whose tokenizer cannot be made here.

    Raises:
        ValueError: a package is missing.
    """
    if record.name and not has_transformers():
        raise ValueError(
            f"{weights} reads words with the tokenizer {record.name}, for which the package transformers is missing. "
            "Type: pip install 'ovseg[hf]'."
        )


def has_transformers() -> bool:
    """Whether the package is installed that Hugging Face's tokenizers and text models come from."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def make_tokenizer(record: TokenizerRecord, context: int) -> SimpleTokenizer | HFTokenizer:
    """The tokenizer for prompts of ``context`` tokens; making one takes a while.

    Raises:
        ValueError: a package is missing, or the tokenizer's files.
    """
    if not record.name:
        return SimpleTokenizer(context_length=context, **dict(record.options))
    require_tokenizer(record, "this tower")
    source = record.name if record.folder is None else str(record.folder)
    try:
        return HFTokenizer(source, context_length=context, tokenizer_mode=record.mode, **dict(record.options))
    except Exception as error:  # the hub's client and the tokenizers have dozens of exception types
        reason = (str(error) or type(error).__name__).splitlines()[0][:160]
        raise ValueError(
            f"the tokenizer {record.name} could not be made: {reason}. "
            f"On a connected machine type `hf download {record.name} --include 'tokenizer*' '*.model' '*.txt'`, put "
            "the files beside the weights."
        ) from error


def count_tokens(tokenizer: SimpleTokenizer | HFTokenizer, prompt: str) -> int:
    """Tokens of a prompt with start and end, before any is cut off."""
    if isinstance(tokenizer, HFTokenizer):
        return len(tokenizer.tokenizer(tokenizer.clean_fn(prompt))["input_ids"])
    return len(tokenizer.encode(prompt)) + 2
