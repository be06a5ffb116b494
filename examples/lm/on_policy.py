"""Distil the language model on its own text: the teacher judges what the student wrote, token by token.

The student learns the text that it may read, as ``plain.py`` does, and goes on from there. It writes the ends
of windows, draws some next tokens at each position of them, asks for the teacher's log-probabilities of these
alone (codec ``gather``), and takes a step on what it has just written::

    edldist run examples/lm/on_policy.yaml --output out/lm-on-policy
"""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

import edldist
from examples.lm import recipe
from examples.lm.models import LanguageModel, student
from examples.lm.text import held_out, read
from examples.lm.training import train_on_text

PROMPT, WRITTEN, DRAWN = 32, 32, 8
RATE = 1e-3


class Writer:
    """Writes the ends of windows of a text, as the model of the moment would, and draws next tokens."""

    def __init__(self, model: LanguageModel, text: Tensor, seed: int) -> None:
        self._model, self._text = model, text
        self._chance = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def write(self) -> dict[str, Tensor]:
        """A batch.

        Returns:
            ``tokens`` int64 [B, S]; ``gather_ids`` int64 [B, S, DRAWN]: what the model might have written
            next; ``written`` bool [B, S]: the positions whose next token is its own.
        """
        starts = torch.randint(len(self._text) - PROMPT, (recipe.BATCH, 1), generator=self._chance)
        tokens = self._text[starts + torch.arange(PROMPT)].long()
        for _ in range(WRITTEN):
            logits = self._model(tokens)["logits"][:, -1]
            tokens = torch.cat([tokens, self._draw(logits, 1)], dim=1)
        logits = self._model(tokens)["logits"]
        drawn = self._draw(logits.flatten(0, 1), DRAWN).view(*tokens.shape, DRAWN)
        written = torch.zeros(tokens.shape, dtype=torch.bool)
        written[:, PROMPT - 1 :] = True
        return {"tokens": tokens, "gather_ids": drawn, "written": written}

    def _draw(self, logits: Tensor, count: int) -> Tensor:
        return torch.multinomial(logits.softmax(-1), count, replacement=True, generator=self._chance)


def main() -> None:
    parser = recipe.options(__doc__)
    parser.add_argument("--own-steps", type=int, default=150, help="steps on the student's own text")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    model, text, test = student(), read(args.text), held_out()
    before = train_on_text(model, text, args.steps, args.seed)[-1]
    print(f"bits per byte: {before:.3f} after {args.steps} steps on the text", flush=True)

    writer = Writer(model, text, args.seed)
    teachers = edldist.LabelRequests(
        edldist.Sequences(("tokens", "gather_ids"), asked="written"),
        checkpointed=False,  # nothing is saved: a run that is begun anew reads its text again first
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    for step in range(1, args.own_steps + 1):
        batch = writer.write()
        labels = teachers.request(batch).labels()
        logits = model(batch["tokens"])["logits"]
        loss = edldist.losses.policy_gradient(
            logits, labels["logits"], batch["gather_ids"], mask=labels["mask"]
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        edldist.report(step=step, steps=args.own_steps, divergence=loss.item())
        if edldist.should_stop():
            return

    bits = recipe.bits_per_byte(model, test)
    print(f"bits per byte: {bits:.3f} after {args.own_steps} steps on its own text")
    edldist.report(step=args.own_steps, bits_per_byte=bits, bits_before=before)
    teachers.close()


if __name__ == "__main__":
    main()
