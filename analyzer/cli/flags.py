"""The library's parameter names in a message, written as the command line's flags."""

import functools
import re

_NAME = re.compile("`([a-z][a-z0-9_]*)`")


def flags(text: str) -> str:
    """`text` with parameters in backticks written as flags, e.g. `write_card` as --write-card.

    Only names that some command has as an option change.
    """

    def flag(match: re.Match[str]) -> str:
        name = "--" + match[1].replace("_", "-")
        return name if name in _options() else match[0]

    return _NAME.sub(flag, text)


@functools.cache
def _options() -> frozenset[str]:
    import typer

    import analyzer.cli.commands  # noqa: F401 - it registers them all
    from analyzer.cli.app import app

    group = typer.main.get_command(app)
    commands = getattr(group, "commands", {})
    return frozenset(name for command in commands.values() for option in command.params for name in option.opts)
