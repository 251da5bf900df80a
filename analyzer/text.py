"""Text and numbers as they are shown, whatever shows them."""

import unicodedata

_REPLACED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def safe(text: object) -> str:
    """Text that cannot command a terminal: control, format (bidi) and surrogate characters become U+FFFD."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _REPLACED and c != "\n" else c for c in str(text)
    )


def short(value: float, form: str) -> str:
    """A number in few characters: 1.4e-6 rather than 1.4e-06, 2.4e-4 rather than 0.00024."""
    if form.endswith("g") and 0 < abs(value) < 1e-3:
        form = f"{form[:-2]}{int(form[-2]) - 1}e"
    mantissa, exponent, power = format(value, form).partition("e")
    return f"{mantissa}e{int(power)}" if exponent else mantissa


def one_line(value: object) -> str:
    """A name on one line, however odd it is."""
    return " ".join(str(value).split())
