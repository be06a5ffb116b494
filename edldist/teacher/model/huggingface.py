"""A teacher from a folder that transformers has saved: ``hf:PATH`` or ``hf:PATH#AutoModelForCausalLM``.

Nothing is downloaded, and no code that lies in the folder is run. Needs the extra ``edldist[huggingface]``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from edldist.errors import ConfigError, ModelError
from edldist.factories.factory import own_traceback
from edldist.reference import FOLDER

__all__ = ["HuggingFaceFolder"]

_NOT_FOR_USERS = ("local_files_only", "output_loading_info", "trust_remote_code")

# What decides which ids a text becomes; other files of a tokenizer hold settings and names of places.
_TOKENIZER_FILES = (
    *("added_tokens.json", "merges.txt", "special_tokens_map.json", "spiece.model", "tokenizer.json"),
    *("sentencepiece.bpe.model", "tokenizer.model", "vocab.json", "vocab.txt"),
)


@dataclass(frozen=True)
class HuggingFaceFolder:
    """A model folder, and the class that it is loaded with. Made before anything is loaded.

    Attributes:
        reference: as its user wrote it.
        folder: with ``config.json`` and the weights.
        model_class: of transformers: that which the config's ``architectures`` names, or what stands behind
            ``#``.
    """

    reference: str
    folder: Path
    model_class: str

    @classmethod
    def parse(cls, reference: str) -> HuggingFaceFolder:
        """Look at the folder of a reference.

        Raises:
            ConfigError: there is no such folder, or its config does not say what it is.
        """
        path, mark, name = reference.removeprefix(FOLDER).partition("#")
        folder = Path(path)
        file = folder / "config.json"
        if not path or not file.is_file():
            what = "no such folder" if not folder.is_dir() else "it has no config.json"
            raise ConfigError(
                f"model {reference}: {what}. Name a folder that save_pretrained has written; "
                "nothing is downloaded"
            )
        if mark and not name.isidentifier():
            raise ConfigError(f"model {reference}: behind # goes a class, as in #AutoModelForCausalLM")
        if not mark:
            try:
                names = json.loads(file.read_text(encoding="utf-8")).get("architectures") or [""]
                name = names[0] if isinstance(names, list) and isinstance(names[0], str) else ""
            except (OSError, ValueError, AttributeError) as exc:
                raise ConfigError(f"model {reference}: {file} cannot be read: {exc}") from exc
        if not name:
            raise ConfigError(
                f"model {reference}: its config names no architectures. Say which class loads it, as in "
                f"{FOLDER}{path}#AutoModelForCausalLM"
            )
        return cls(reference, folder, name)

    @property
    def identity(self) -> str:
        """What workers of one group have in common, wherever the folder lies on their hosts."""
        return f"{FOLDER}{self.model_class}"

    def load(self, kwargs: Mapping[str, Any]) -> nn.Module:
        """The model, as ``from_pretrained`` makes it, which returns named outputs and keeps no cache.

        Args:
            kwargs: of ``from_pretrained``: ``dtype``, ``device_map``, ``attn_implementation`` ...

        Raises:
            ConfigError: transformers is not installed.
            ModelError: it has no such class, or cannot load the folder.
        """
        try:
            import transformers
        except ImportError as exc:
            raise ConfigError(
                f"model {self.reference}: transformers is not installed: pip install 'edldist[huggingface]' "
                "(in a clone: '.[huggingface]')"
            ) from exc
        if own := [key for key in _NOT_FOR_USERS if key in kwargs]:
            raise ConfigError(
                f"model {self.reference}: {own[0]} is not for you to choose: nothing is downloaded, and no "
                "code of the folder is run. Write a factory (package.module:factory) if you need either"
            )
        made = getattr(transformers, self.model_class, None)
        if not (isinstance(made, type) and hasattr(made, "from_pretrained") and "Model" in _lineage(made)):
            raise ModelError(
                f"model {self.reference}: transformers {transformers.__version__} has no model class "
                f"{self.model_class!r}. Say another one behind #, as in #AutoModel, or write a factory"
            )
        try:
            model, loaded = made.from_pretrained(
                self.folder, local_files_only=True, output_loading_info=True, **kwargs
            )
        except Exception as exc:
            raise ModelError(
                f"model {self.reference} cannot be loaded as {self.model_class}:\n{own_traceback(exc)}"
            ) from exc
        if missing := sorted(loaded["missing_keys"]):
            raise ModelError(
                f"model {self.reference}: the folder lacks {len(missing)} weights of a {self.model_class}, "
                f"which would be random: {', '.join(missing[:8])}. Load it as what was saved, or train its "
                "head first"
            )
        for part in model.modules():
            config: Any = getattr(part, "config", None)
            if getattr(config, "use_cache", None):
                config.use_cache = False
        model.config.return_dict = True
        return model  # type: ignore[no-any-return]

    def tokenizer_digest(self) -> str:
        """Of the tokenizer that lies beside the model; empty if none does. 32 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=16)
        files = [file for name in _TOKENIZER_FILES if (file := self.folder / name).is_file()]
        for file in files:
            content = file.read_bytes()
            digest.update(f"{file.name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest() if files else ""


def _lineage(made: type) -> str:
    return " ".join(each.__name__ for each in made.__mro__)
