"""The command line. Nothing heavy is imported before a command needs it: ``--help`` answers at once."""

from edldist_launch.cli.group import cli, main

__all__ = ["cli", "main"]
