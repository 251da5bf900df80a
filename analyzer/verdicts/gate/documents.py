"""A gate's verdicts in words, as JUnit XML, which CI servers read, and as Markdown for a merge request."""

import math
import re
from pathlib import Path
from typing import TypedDict
from xml.etree import ElementTree

from analyzer.errors import UsageError
from analyzer.store import files, is_file_of_a_run

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PLAIN = re.compile(r"[\w ./:@<>=%+-]*", re.ASCII)


class JudgedRun(TypedDict):
    """A run or baseline; missing: what is left to be done, "" for nothing."""

    name: str
    path: str
    finished: int
    selected: int
    complete: bool
    missing: str


class VerdictEntry(TypedDict):
    """A condition and what became of it; numbers are NaN where undefined."""

    condition: str
    kind: str
    name: str
    bound: float
    relative: bool
    status: str
    passed: bool
    judged: float
    low: float
    high: float
    n: int
    value: float
    baseline: float
    explanation: str


class Judgement(TypedDict):
    """What a gate returns. notes: what a reader of the changes from the baseline has to know, in sentences."""

    schema: int
    run: JudgedRun
    baseline: JudgedRun | None
    strict: bool
    notes: list[str]
    passed: bool
    verdicts: list[VerdictEntry]


def partial(document: Judgement) -> list[str]:
    """What is not complete, in words: ["photos is partial: 3 of 12 images"]."""
    return [
        f"{one['name']} is partial: {one['missing']}"
        for one in (document["run"], document["baseline"])
        if one is not None and not one["complete"]
    ]


def reason(document: Judgement) -> str:
    """Why a gate does not pass, in one or two lines."""
    failed = [verdict for verdict in document["verdicts"] if not verdict["passed"]]
    reasons = partial(document)
    if failed:
        count = f"{len(failed)} of {len(document['verdicts'])} conditions do not pass"
        listed = "; ".join(f"{v['condition']} ({v['explanation']})" for v in failed[:3])
        reasons.append(f"{count}: {listed}{'; ...' if len(failed) > 3 else ''}")
    return "gate: " + "\n".join(["; ".join(reasons[:-1]), reasons[-1]] if len(reasons) > 1 else reasons)


def junit(document: Judgement) -> str:
    """JUnit XML of what `gate.examine` returned: one test case a condition, and one, "complete", for the runs being so.

    What was judged, and whether it is undecided, stands in each case's system-out, also where it passes.
    Characters that XML 1.0 cannot hold become U+FFFD.
    """
    verdicts, unfinished = document["verdicts"], partial(document)
    cases = [("complete", [("partial", "; ".join(unfinished))] if unfinished else [], "")]
    for v in verdicts:
        text = f"{v['explanation']}; {numbers(v)}"
        cases.append((v["condition"], [] if v["passed"] else [(v["status"], text)], text))
    count = {
        "tests": str(len(cases)),
        "failures": str(sum(bool(f) for _, f, _ in cases)),
        "errors": "0",
        "skipped": "0",
    }
    root = ElementTree.Element("testsuites", {"name": "analyzer gate", **count})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(document["run"]["name"]), **count})
    for name, failures, text in cases:
        where = {"classname": _xml(document["run"]["name"]), "name": _xml(name), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", where)
        for kind, message in failures:
            ElementTree.SubElement(case, "failure", {"type": kind, "message": _xml(message)}).text = _xml(message)
        if text:
            ElementTree.SubElement(case, "system-out").text = _xml(text)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def markdown(document: Judgement) -> str:
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


def sign(verdict: VerdictEntry) -> str:
    """✓ passes, ? is let through undecided, ✗ does not pass."""
    return "✗" if not verdict["passed"] else "?" if verdict["status"] == "undecided" else "✓"


def cells(verdict: VerdictEntry) -> tuple[str, str, str]:
    """Value, what was held against the bound, and its interval, as text; changes in percent where they are relative."""
    relative = verdict["relative"]
    value = _shown(verdict["value"])
    if verdict["kind"] == "max-regression":
        value += f" (baseline {_shown(verdict['baseline'])})"
    low, high = verdict["low"], verdict["high"]
    bounded = not (math.isnan(low) or math.isnan(high))
    interval = f"{_shown(low, relative)} – {_shown(high, relative)}" if bounded else "none"
    return value, _shown(verdict["judged"], relative), interval


def numbers(verdict: VerdictEntry) -> str:
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


def write_text(target: Path, text: str, *, parameter: str) -> None:
    """Make the file `target`, in a folder made if need be, hold `text` or stay as it was.

    Raises UsageError naming `parameter` where it is a run's own file, is no regular file, or cannot be written, and
    IncompleteError where the disk is full.
    """
    target = Path(target)
    if is_file_of_a_run(target):
        raise UsageError(f"`{parameter}` {target}: that is a file of a run; give another one")
    files.write_asked_for(target, text.encode("utf-8", "replace"), parameter=parameter)
