"""The teacher and the student: GPT-2s of some thousand parameters over bytes."""

from __future__ import annotations

from transformers import GPT2Config, GPT2LMHeadModel

from examples.huggingface.data import TOKENS, WINDOW


def gpt2(width: int, layers: int) -> GPT2LMHeadModel:
    """A GPT-2 of that width, with heads of 16."""
    sizes = {"vocab_size": TOKENS, "n_positions": WINDOW, "n_embd": width, "n_layer": layers}
    return GPT2LMHeadModel(GPT2Config(**sizes, n_head=width // 16, bos_token_id=0, eos_token_id=0))


def teacher() -> GPT2LMHeadModel:
    return gpt2(64, 1)


def student() -> GPT2LMHeadModel:
    return gpt2(32, 1)
