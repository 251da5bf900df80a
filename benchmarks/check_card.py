"""How often `check-card` names the field that is wrong: each field of a right card is spoiled in turn.

    python benchmarks/check_card.py MODEL.onnx --images DIR --labels F [--card F] [--limit 60]

Prints a line for each spoiled card, and at the end how many were named: of all, and of those that cost the network at
least ten points of accuracy; and of how many the field stood first among the other cards, whether it was named or not.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from analyzer import card as cards
from analyzer import check_card
from analyzer.card import Card
from analyzer.resize import Resize

COSTLY = 0.1  # of accuracy
SAME = 0.05  # relative: normalisations that are so close are one


def spoiled(card: Card) -> Iterator[tuple[str, str, Card]]:
    """(field, what it has now, card) of the mistakes that are made."""
    other, count = {"RGB": "BGR", "BGR": "RGB"}.get(card.channels), len(card.mean)
    if other:
        changed = dataclasses.replace(card, channels=other, mean=card.mean[::-1], std=card.std[::-1])
        yield "input.channels", other, changed
    normalisations = {
        "0..255": ((0.0,) * count, (1.0,) * count),
        "0..1": ((0.0,) * count, (255.0,) * count),
        "-1..1": ((127.5,) * count, (127.5,) * count),
        "no std": (card.mean, (1.0,) * count),
        "no mean": ((0.0,) * count, card.std),
    }
    for name, (mean, std) in normalisations.items():
        same = np.allclose(np.array(mean) / card.std, np.array(card.mean) / card.std, atol=SAME)
        if not (same and np.allclose(std, card.std, rtol=SAME)):
            yield "input.mean and input.std", name, dataclasses.replace(card, mean=mean, std=std)
    small = Resize("crop_pct", crop_pct=0.6, interpolation=card.resize.interpolation)
    yield "input.resize", "0.6 cut out", dataclasses.replace(card, resize=small)
    nearest = dataclasses.replace(card.resize, interpolation="nearest", antialias=True)
    yield "input.resize.interpolation", "nearest", dataclasses.replace(card, resize=nearest)


def main() -> None:
    """Spoil, check, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--card", type=Path)
    parser.add_argument("--limit", type=int, default=60)
    given = parser.parse_args()
    card = cards.read(cards.locate(given.model, given.card))
    named = first = costly = costly_named = wrong = total = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card.json"
        for field, what, changed in [("", "the card itself", card), *spoiled(card)]:
            cards.write(changed, path)
            found = check_card(
                given.model, given.images, card=path, labels=given.labels, limit=given.limit, provider="cpu"
            )
            (own,) = (row["accuracy"]["value"] or 0.0 for row in found["rows"] if not row["field"])
            if not field:
                right = own
            else:
                total += 1
                named += found["field"] == field
                first += next(row["field"] for row in found["rows"] if row["field"]) == field
                costly += right - own >= COSTLY
                costly_named += right - own >= COSTLY and found["field"] == field
            wrong += found["field"] not in ("", field)
            print(f"{field or '-':26} {what:16} {own:4.0%} right; named: {found['field'] or '-'}", flush=True)
    print(
        f"named: {named} of {total}; of those that cost ten points or more {costly_named} of {costly}; "
        f"first: {first} of {total}; wrongly named: {wrong}"
    )


if __name__ == "__main__":
    main()
