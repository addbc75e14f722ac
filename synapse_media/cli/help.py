"""`synapse-media help`: the help of the command line, or of one command."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "The same as COMMAND --help."
    parser.add_argument("topic", metavar="COMMAND", nargs="?", help="default: the whole command line")


def run(arguments: argparse.Namespace) -> int:
    from .commandline import parser

    # Ends the process, as --help does.
    parser().parse_args([*([arguments.topic] if arguments.topic else []), "--help"])
    return 0
