"""The text: first paragraphs of docstrings of installed packages, of nine subjects. None is imported."""

from __future__ import annotations

import ast
import functools
import importlib.util
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["SUBJECTS", "Split", "split"]

SUBJECTS = {
    "statistics": ["scipy.stats"],
    "signals": ["scipy.signal"],
    "plots": ["matplotlib"],
    "images": ["PIL"],
    "layers": ["torch.nn"],
    "clusters": ["torch.distributed"],
    "files": ["fsspec", "pathlib", "shutil", "tarfile", "zipfile", "tempfile"],
    "terminals": ["rich", "click"],
    "mail and web": ["email", "http", "urllib", "xmlrpc", "html", "ftplib", "smtplib", "imaplib"],
}
LABELS_EACH = 5  # that a person would have to write
_MOST_EACH = 400  # of the larger packages so many, for no subject to outweigh the others
_SHORTEST, _LONGEST = 40, 400  # characters
_TESTED = 4  # every fourth text judges


@dataclass(frozen=True)
class Split:
    """What a seed makes of the text.

    Attributes:
        labelled: texts with a known subject, ``LABELS_EACH`` of each.
        subjects: of these, int64 [45]: indices into ``SUBJECTS``.
        unlabelled: texts whose subject nobody has told.
        test: texts that neither a student nor a teacher's head has seen, the same for all seeds.
        answers: of these, int64.
    """

    labelled: list[str]
    subjects: np.ndarray
    unlabelled: list[str]
    test: list[str]
    answers: np.ndarray


def split(seed: int) -> Split:
    """The text, with other texts labelled for each seed."""
    chance = np.random.default_rng(seed)
    of_subjects = _texts_of_subjects()
    seen = Counter(text for texts in of_subjects for text in texts)
    labelled: list[tuple[str, int]] = []
    unlabelled: list[str] = []
    test: list[tuple[str, int]] = []
    for number, found in enumerate(of_subjects):
        texts = _in_order(text for text in found if seen[text] == 1)[:_MOST_EACH]
        tested = [text for at, text in enumerate(texts) if at % _TESTED == 0]
        rest = [text for at, text in enumerate(texts) if at % _TESTED != 0]
        chosen = set(chance.choice(len(rest), LABELS_EACH, replace=False).tolist())
        labelled += [(text, number) for at, text in enumerate(rest) if at in chosen]
        unlabelled += [text for at, text in enumerate(rest) if at not in chosen]
        test += [(text, number) for text in tested]
    return Split(
        [text for text, _ in labelled],
        np.array([subject for _, subject in labelled]),
        unlabelled,
        [text for text, _ in test],
        np.array([subject for _, subject in test]),
    )


def _in_order(texts: Iterable[str]) -> list[str]:
    """By a sum of each text, so that neither files nor places in them matter."""
    return sorted(texts, key=lambda text: (zlib.crc32(text.encode()), text))


@functools.cache
def _texts_of_subjects() -> list[set[str]]:
    return [set(_texts(modules)) for modules in SUBJECTS.values()]


def _texts(modules: list[str]) -> Iterator[str]:
    for module in modules:
        for path in _files(module):
            yield from _paragraphs(path)


def _files(module: str) -> list[Path]:
    top, _, inner = module.partition(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{module} is not installed: pip install -e '.[encoder]'")
    if not spec.submodule_search_locations:
        return [Path(spec.origin)]
    folder = Path(spec.origin).parent / inner
    return [path for path in sorted(folder.rglob("*.py")) if "test" not in str(path.relative_to(folder))]


def _paragraphs(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if _SHORTEST <= len(paragraph) <= _LONGEST:
                yield paragraph
