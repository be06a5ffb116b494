"""``edldist completion``: what lets a shell complete commands and options."""

from __future__ import annotations

import click

__all__ = ["completion"]

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print a script by which SHELL completes edldist's commands and options.

    \b
    bash: echo 'eval "$(edldist completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(edldist completion zsh)"' >> ~/.zshrc
    fish: edldist completion fish > ~/.config/fish/completions/edldist.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    # Not source(): that runs bash to see how old it is, and says so on standard error.
    made = kind(context.find_root().command, {}, "edldist", "_EDLDIST_COMPLETE")
    click.echo(made.source_template % made.source_vars())
    return 0
