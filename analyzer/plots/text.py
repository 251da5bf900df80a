"""Text in pictures: shown literally, in characters that the font has, and short enough for its place."""

import re
import unicodedata
from functools import cache

import numpy as np

_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def printable(text: object) -> str:
    """What a picture can show: U+FFFD for control and format characters, \\uXXXX for those that the font lacks."""
    return "".join(map(_shown, str(text)))


def _shown(character: str) -> str:
    if unicodedata.category(character) in _UNSAFE:
        return "\N{REPLACEMENT CHARACTER}"
    if ord(character) in _in_font():
        return character
    return character.encode("ascii", "backslashreplace").decode()


@cache
def _in_font() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def shortened(text: object, *, letters: int, lines: int = 1) -> str:
    """Printable text in at most so many lines of so many letters; where it is longer, its middle is left out."""
    whole = printable(text)
    letters = max(letters, 4)
    room = letters * lines
    wrapped = _wrapped(whole, letters)
    while len(wrapped) > lines and room > 4:
        kept = room - 1
        wrapped = _wrapped(f"{whole[: kept - kept // 2]}…{whole[len(whole) - kept // 2 :]}", letters)
        room -= 1
    return "\n".join(wrapped)


def _wrapped(text: str, letters: int) -> list[str]:
    """Lines of at most so many letters, broken after a blank or what joins the words of a name where there is one."""
    lines = [""]
    for word in re.split(r"(?<=[ _./-])", text):
        if len(lines[-1]) + len(word.rstrip()) > letters and lines[-1]:
            lines.append("")
        lines[-1] += word
        while len(lines[-1].rstrip()) > letters:
            lines[-1:] = [lines[-1][:letters], lines[-1][letters:]]
    return [stripped for line in lines if (stripped := line.strip())]


def tick(value: float, _position: int | None = None) -> str:
    """A tick label without markup: 0.5, 20, −0.1, 10⁻⁶, 2·10⁻⁶."""
    if value == 0 or not np.isfinite(value):
        return "0" if value == 0 else ""
    if 1e-3 <= abs(value) < 1e5:
        return f"{float(f'{value:.10g}'):.10g}".replace("-", "\N{MINUS SIGN}")
    mantissa, _, power = f"{value:.9e}".partition("e")
    factor = f"{float(mantissa):g}".replace("-", "\N{MINUS SIGN}")
    return ("" if factor == "1" else f"{factor}·") + "10" + str(int(power)).translate(_SUPERSCRIPT)
