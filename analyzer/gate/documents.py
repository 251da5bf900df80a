"""A gate's verdicts in words, as JUnit XML, which CI servers read, and as Markdown for a merge request."""

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from analyzer.errors import UsageError
from analyzer.store import files

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PLAIN = re.compile(r"[\w ./:@<>=%+-]*", re.ASCII)
_RUN_FILES = {"manifest.json", "calibration.json", "results.nc", "summary.json", ".lock"}


def partial(document: dict[str, Any]) -> list[str]:
    """What is not complete, in words: ["photos is partial: 3 of 12 images"]."""
    return [
        f"{one['name']} is partial: {one['missing']}"
        for one in (document["run"], document["baseline"])
        if one is not None and not one["complete"]
    ]


def reason(document: dict[str, Any]) -> str:
    """Why a gate does not pass, in one or two lines."""
    failed = [verdict for verdict in document["verdicts"] if not verdict["passed"]]
    said = partial(document)
    if failed:
        count = f"{len(failed)} of {len(document['verdicts'])} conditions do not pass"
        said.append(f"{count}: " + "; ".join(f"{v['condition']} ({v['explanation']})" for v in failed[:3]))
        said[-1] += "; ..." if len(failed) > 3 else ""
    return "gate: " + "\n".join(["; ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def junit(document: dict[str, Any]) -> str:
    """JUnit XML of what `gate.examine` returned: one test case a condition, and one, "complete", for the runs being so.

    What was judged, and whether it is undecided, stands in each case's system-out, also where it passes.
    Characters that XML 1.0 cannot hold become U+FFFD.
    """
    verdicts, unfinished = document["verdicts"], partial(document)
    cases = [("complete", [("partial", "; ".join(unfinished))] if unfinished else [], "")]
    for v in verdicts:
        said = f"{v['explanation']}; {numbers(v)}"
        cases.append((v["condition"], [] if v["passed"] else [(v["status"], said)], said))
    count = {
        "tests": str(len(cases)),
        "failures": str(sum(bool(f) for _, f, _ in cases)),
        "errors": "0",
        "skipped": "0",
    }
    root = ElementTree.Element("testsuites", {"name": "analyzer gate", **count})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(document["run"]["name"]), **count})
    for name, failures, said in cases:
        where = {"classname": _xml(document["run"]["name"]), "name": _xml(name), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", where)
        for kind, message in failures:
            ElementTree.SubElement(case, "failure", {"type": kind, "message": _xml(message)}).text = _xml(message)
        if said:
            ElementTree.SubElement(case, "system-out").text = _xml(said)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def markdown(document: dict[str, Any]) -> str:
    """A Markdown table of what `gate.examine` returned, in which names are shown literally."""
    run, baseline = document["run"], document["baseline"]
    against = f" against {code(baseline['name'])}" if baseline else ""
    lines = [f"### Gate {'passed' if document['passed'] else 'did not pass'}: {code(run['name'])}{against}", ""]
    lines += [f"**Partial**: {code(text)}\n" for text in partial(document)]
    lines += [f"**Note**: {code(text)}\n" for text in document["notes"]]
    if document["verdicts"]:
        lines += ["| condition | value | judged | 95 % interval | images | verdict |", "|---|---:|---:|---:|---:|---|"]
    for v in document["verdicts"]:
        value, judged, interval = cells(v)
        mark = {"✓": "✅", "?": "❔", "✗": "❌"}[sign(v)]
        cell = f"{mark} {v['explanation']}"
        lines.append(f"| {code(v['condition'])} | {value} | {judged} | {interval} | {v['n']} | {cell} |")
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    """Inline code that shows `text` as it is, in a table cell too: pipes, backticks, markup and mentions are inert."""
    if text and _PLAIN.fullmatch(text):
        return f"`{text}`"
    # Entities, since neither a backtick nor a pipe can be escaped alike by all readers of Markdown.
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return f"<code>{''.join(c if c.isalnum() or c == ' ' else f'&#{ord(c)};' for c in clean)}</code>"


def sign(verdict: dict[str, Any]) -> str:
    """✓ passes, ? is let through undecided, ✗ does not pass."""
    return "✗" if not verdict["passed"] else "?" if verdict["status"] == "undecided" else "✓"


def cells(verdict: dict[str, Any]) -> tuple[str, str, str]:
    """Value, what was held against the bound, and its interval, as text; changes in percent where they are relative."""
    relative = verdict["relative"]
    value = _shown(verdict["value"])
    if verdict["kind"] == "max-regression":
        value += f" (baseline {_shown(verdict['baseline'])})"
    known = math.isfinite(verdict["low"]) and math.isfinite(verdict["high"])
    interval = " to ".join(_shown(verdict[end], relative) for end in ("low", "high")) if known else "none"
    return value, _shown(verdict["judged"], relative), interval


def numbers(verdict: dict[str, Any]) -> str:
    """The same in one sentence."""
    value, judged, interval = cells(verdict)
    return f"value {value}, judged {judged}, 95 % interval {interval}, {verdict['n']} images"


def _shown(value: float, relative: bool = False) -> str:
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "infinite"
    return f"{100 * value:+.3g}%" if relative else f"{value:.4g}"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def write_text(target: Path, text: str, *, flag: str) -> None:
    """Make the file `target`, in a folder made if need be, hold `text` or stay as it was.

    Raises UsageError naming `flag` where it is a run's own file, is no regular file, or cannot be written, and
    IncompleteError where the disk is full.
    """
    target = Path(target)
    here = target.resolve().parent
    run = here.parent if here.name == "units" else here
    if (here != run or target.name in _RUN_FILES) and (run / "manifest.json").exists():
        raise UsageError(f"{flag} {target}: that is a file of a run; give another one")
    files.write_asked_for(target, text.encode("utf-8", "replace"), flag=flag)
