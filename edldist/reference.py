"""What ``model:`` of a teacher may name: a factory, a folder of Hugging Face's, or an HTTP engine."""

from __future__ import annotations

__all__ = [
    "ENGINES",
    "ENGINE_FILES",
    "FACTORY",
    "FOLDER",
    "FOLLOW",
    "MODEL",
    "MODEL_FORMS",
    "OUTPUT",
    "is_engine",
    "is_factory",
    "in_folder",
    "is_folder",
    "is_in_folder",
    "place_of",
]

FOLDER = "hf:"
FOLLOW = "follow:"
"""Before the place of weights that somebody publishes, where weights of a teacher may be named."""
OUTPUT = "{output}"
"""At the beginning of such a place: the folder of the job, which its script finds in ``EDLDIST_OUTPUT``."""
ENGINES = ("vllm:", "sglang:")
ENGINE_FILES = ("tokenizer", "api_key_file")
"""Those arguments of an engine that are paths."""
FACTORY = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
_ENGINE = rf"({'|'.join(name[:-1] for name in ENGINES)}):https?://[^\s/#]+(/[^\s#]*)?(#\S(.*\S)?)?"
MODEL = rf"^({FACTORY[1:-1]}|{FOLDER}\S(.*\S)?|{_ENGINE})$"
MODEL_FORMS = (
    "module:factory, as in package.module:factory, or hf:FOLDER, as in hf:models/gpt2, or an HTTP engine, as "
    "in vllm:http://host:8000 or sglang:http://host:30000"
)


def is_folder(model: str) -> bool:
    """Whether it is a folder of Hugging Face's."""
    return model.startswith(FOLDER)


def is_engine(model: str) -> bool:
    """Whether it is an HTTP engine."""
    return model.startswith(ENGINES)


def is_factory(model: str) -> bool:
    """Whether something has to be imported."""
    return not is_folder(model) and not is_engine(model)


def place_of(weights: str | None) -> str | None:
    """Where weights are published that a teacher follows, or None if it follows none; it may be empty."""
    return weights.removeprefix(FOLLOW) if weights is not None and weights.startswith(FOLLOW) else None


def is_in_folder(place: str) -> bool:
    """Whether a place lies in the job's folder, whichever that is."""
    return place.partition("/")[0] == OUTPUT


def in_folder(weights: str, output: str) -> str:
    """The same weights, where ``{output}`` at the beginning of a followed place is the job's folder."""
    place = place_of(weights)
    if place is None or not is_in_folder(place):
        return weights
    return f"{FOLLOW}{output.rstrip('/')}{place.removeprefix(OUTPUT)}"
