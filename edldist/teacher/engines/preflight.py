"""What is looked at before an engine's labels are anybody's: at the start of each worker.

The engine is waited for while it loads. Then it has to serve the model that is meant, tell as many entries as
the codec keeps, tell the same twice, and tell of a token that it samples what it tells of a prompt.
"""

from __future__ import annotations

import logging
import time

import msgspec
import numpy as np

from edldist.errors import ConfigError, EngineLostError, ModelError
from edldist.teacher.engines.client import Client, words_of
from edldist.teacher.engines.connections import NoAnswerError
from edldist.teacher.engines.entries import TopEntries, checked
from edldist.teacher.engines.protocol import Protocol, Served, decoded
from edldist.teacher.engines.settings import EngineSettings

__all__ = ["await_engine", "check_answers", "choose_model"]

logger = logging.getLogger(__name__)

_MODELS = "/v1/models"
_LOOK_S = 0.5
_ASK_S = 10.0
_PROBE_TOKENS = 40
"""More than a block of a prefix cache (16 or 32): what is cached may be told wrongly, or not at all."""
_SAMPLED_AFTER = (1, 5, 17)
_ENOUGH, _ALIKE = 8, 0.25
"""Of so many entries such a share of the mass has to be the same ones."""
_AGREE_NATS = 0.15
"""Batches of other sizes are added up in another order: in bfloat16 that is worth some hundredths."""


class _Card(msgspec.Struct, gc=False):
    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None
    owned_by: str | None = None


class _Models(msgspec.Struct, gc=False):
    data: list[_Card]


def await_engine(client: Client, settings: EngineSettings) -> list[_Card]:
    """The models that the engine serves, once it answers.

    Raises:
        EngineLostError: it does not within ``wait_s``.
        ConfigError: it asks for a key, or for another one.
        ModelError: what answers is no such engine.
    """
    deadline = time.monotonic() + settings.wait_s
    said = False
    while True:
        try:
            status, content = client.get(_MODELS, min(_ASK_S, settings.timeout_s))
            why = f"HTTP {status}: {words_of(content)}"
        except NoAnswerError as exc:
            status, content, why = 0, b"", str(exc)
        if status == 200:
            cards: list[_Card] = decoded(client, content, _Models).data
            return cards
        if status in (401, 403):
            raise ConfigError(f"{client.address} asks for its key ({why}): name a file with it, api_key_file")
        if 400 <= status < 500 and status not in (408, 429):
            raise ModelError(f"{client.address}: {_MODELS} is not there ({why}): it is no such engine")
        left = deadline - time.monotonic()
        if left <= 0:
            raise EngineLostError(
                f"{client.address} did not answer within wait_s, {settings.wait_s:g} s: {why}"
            )
        if not said:
            said = True
            logger.info("waiting for %s, up to %g s: %s", client.address, settings.wait_s, why)
        time.sleep(min(_LOOK_S, left))


def choose_model(cards: list[_Card], protocol: Protocol) -> Served:
    """The model that the worker's reference means.

    Raises:
        ConfigError: the engine serves no such model, or several and none is named; or is of another kind.
    """
    address = protocol.client.address
    own = {card.owned_by for card in cards} & {"vllm", "sglang"}
    if own and address.kind not in own:
        raise ConfigError(
            f"model {address.reference}: it is {own.pop()} that answers there: write it so, before the colon"
        )
    # Adapters have a parent.
    fit = [card for card in cards if (card.id == address.name if address.name else card.parent is None)]
    if len(fit) != 1:
        names = ", ".join(card.id for card in cards) or "none"
        raise ConfigError(
            f"model {address.reference}: the engine serves {names}: name one of them behind #, as in "
            f"{address.reference.partition('#')[0]}#{cards[0].id if cards else 'NAME'}"
        )
    card = fit[0]
    version = protocol.version_of(_ASK_S)
    return Served(card.id, card.root or "", card.max_model_len, version)


def check_answers(protocol: Protocol, served: Served, kept: int, vocabulary: int) -> None:
    """Ask for the labels of a few tokens, and look at them.

    Raises:
        ModelError: it tells too few entries, other ones the second time, or of sampled tokens others than of
            prompts; or nothing sound at all.
        EngineLostError: see ``Client``.
    """
    address = protocol.client.address
    room = _PROBE_TOKENS if served.context is None else served.context - protocol.spare - 1
    count = min(_PROBE_TOKENS, room)
    if count < 1:
        raise ModelError(f"{address} has a context of {served.context} tokens, too few for any label")
    tokens = np.arange(3, 3 + 7 * count, 7, dtype=np.int64) % min(vocabulary, 1000)
    positions = np.arange(count, dtype=np.int64)
    try:
        first = checked(protocol.prompt_entries(served, tokens, positions, kept), positions, kept, vocabulary)
    except ModelError as exc:
        few = "logprobs" in str(exc) or "were asked for" in str(exc)
        hint = f". It has to tell {kept} entries: {protocol.raise_cap.format(kept=kept)}" if few else ""
        raise ModelError(f"{address} does not label a probe of {count} tokens: {exc}{hint}") from exc
    again = checked(protocol.prompt_entries(served, tokens, positions, kept), positions, kept, vocabulary)
    for at in range(count):
        if (apart := _apart(first, at, again, at)) > _AGREE_NATS:
            raise ModelError(
                f"{address} tells of the same prompt now this and now that: {apart:.3g} nats apart at "
                f"position {at}. If it keeps prefixes, have it not (--no-enable-prefix-caching of vLLM, "
                "--disable-radix-cache of SGLang)"
            )
    for length in _SAMPLED_AFTER:
        if length > count:
            break
        told = protocol.next_entries(served, tokens[:length].tolist(), kept)
        if told is None:
            logger.warning("%s does not tell ids of sampled tokens: its temperature is not checked", address)
            break
        sampled = checked(told, np.array([length - 1]), kept, vocabulary)
        if (apart := _apart(first, length - 1, sampled, 0)) > _AGREE_NATS:
            raise ModelError(
                f"{address} tells of a sampled token what it does not tell of a prompt: {apart:.3g} nats "
                f"apart after {length} tokens at temperature 1. It has a temperature, penalties or a "
                "--logprobs-mode of its own: start it without these"
            )


def _apart(one: TopEntries, at: int, other: TopEntries, there: int) -> float:
    """Mean difference of the log-probabilities of the first, the second and so on, by the first's
    probabilities; ``inf`` if they are of other entries. Entries that are equally probable, as many are in
    bfloat16, may have changed places."""
    mine, its = one.log_probs[at].astype(np.float64), other.log_probs[there].astype(np.float64)
    weights = np.exp(mine)
    alike = weights[np.isin(one.ids[at], other.ids[there])].sum() / weights.sum()
    if len(mine) >= _ENOUGH and alike < _ALIKE:
        return float("inf")
    both = np.isfinite(mine) & np.isfinite(its)
    return float((weights[both] * np.abs(mine[both] - its[both])).sum() / weights[both].sum())
