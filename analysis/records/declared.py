"""Where a study is declared, in records or in a YAML file, and the one door to it: checked, its names plain."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from msgspec import Meta

from analysis.records import limits
from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.metrics import metric
from analysis.records.options import DEEPEST, flatten, is_deep
from analysis.records.outcomes import COLLAPSE
from analysis.records.study import CELLS, KINDS, SPENDING, STATISTICS, TESTS, Family, Published, Sequential, Study
from analysis.records.texts import one_line, plain
from harness.store.files import Damaged, check_shape, parse_json

if TYPE_CHECKING:
    import pandas as pd


MOST_SEEDS = 200  # of a sequential study
UNDECISIVE = ("question", "baseline", "published", "source")  # what of a study decides no verdict


class Block(TypedDict, total=False):
    """The types of what stands under `study:`; values are looked at behind them."""

    name: Any
    question: str | None
    primary: str
    baseline: str | None
    alpha: Any
    test: str
    margins: dict[str, Any] | None
    arms: dict[str, dict[str, Any]] | None
    factors: list[str] | None
    seeds: Any
    collapse: dict[str, Any] | None
    families: dict[str, Any] | None
    sequential: dict[str, Any] | None
    published: dict[str, Any] | None


Values = Annotated[list[Annotated[float, Meta(gt=-limits.MOST, lt=limits.MOST)]], Meta(min_length=1)]


class PublishedBlock(TypedDict):
    source: str
    data: str
    model: str
    arms: dict[str, dict[str, Values]]


class Against(TypedDict, total=False):
    against: str
    arms: list[str] | None


class Cells(TypedDict, total=False):
    neither: str
    first: str
    second: str
    both: str
    names: tuple[str, str]


def parse(block: Any, source: str) -> Study:
    """A Study from the mapping under `study:`. Raises AnalysisError naming the key that is wrong."""

    def fail(message: str) -> AnalysisError:
        return AnalysisError(f"study ({plain(source)}): {message}")

    block = _as_json(block, fail)
    if not isinstance(block, dict):
        raise fail("expected a mapping with question, primary, baseline, families, margins, alpha")
    known = {"name", *(f.name for f in fields(Study) if f.name != "source")}
    _refuse_unknown(block, known, "", fail)
    try:
        check_shape(block, Block, f"study ({plain(source)})")
    except Damaged as error:
        raise AnalysisError(one_line(str(error))) from error
    test = block.get("test", "guarded")
    if test not in TESTS:
        raise fail(f"unknown test {test!r}: choose one of {', '.join(TESTS)}")
    primary = block.get("primary", "nll")
    try:
        return Study(
            question=one_line(block["question"]) if block.get("question") else None,
            primary=metric(primary).column,
            baseline=plain(block["baseline"]) if block.get("baseline") else None,
            alpha=limits.alpha(block.get("alpha", 0.05)),
            test=test,
            margins={name: limits.margin(name, value) for name, value in (block.get("margins") or {}).items()},
            arms={plain(label): flatten(wanted) for label, wanted in (block.get("arms") or {}).items()},
            factors=tuple(block.get("factors") or ()),
            seeds=None if block.get("seeds") is None else limits.seeds(block["seeds"]),
            collapse=COLLAPSE | {name: limits.collapse(name, v) for name, v in (block.get("collapse") or {}).items()},
            families=tuple(_family(plain(name), body) for name, body in (block.get("families") or {}).items()),
            sequential=_sequential(block["sequential"], block) if block.get("sequential") is not None else None,
            published=_published(block["published"]) if block.get("published") is not None else None,
            source=plain(source),
        )
    except AnalysisError as error:
        raise fail(one_line(str(error))) from error


def _as_json(block: Any, fail: Callable[[str], AnalysisError]) -> Any:
    """What a record would hold of it: texts, numbers, lists and mappings by text."""
    try:
        text = json.dumps(block, allow_nan=True)  # for a value that is none there is a better line
        plainly = parse_json(text.encode(), Any, "it")
    except (TypeError, ValueError, RecursionError) as error:
        raise fail(f"not made of texts, numbers, lists and mappings ({one_line(str(error))})") from error
    if is_deep(plainly):
        raise fail(f"more than {DEEPEST} levels")
    return plainly


def _refuse_unknown(found: dict[str, Any], known: set[str], where: str, fail: Callable[[str], AnalysisError]) -> None:
    if unknown := sorted(map(plain, found.keys() - known)):
        raise fail(f"{where}unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}")


def _family(name: str, body: Any) -> Family:
    """Raises AnalysisError."""

    def shaped(value: Any, shape: Any, wanted: str) -> Any:
        try:
            return check_shape(value, shape, name)
        except Damaged as error:
            raise AnalysisError(f"family {name}: {wanted}") from error

    if isinstance(body, list):
        body = {"pairs": body}
    kinds = [kind for kind in KINDS if isinstance(body, dict) and kind in body]
    if len(kinds) != 1:
        raise AnalysisError(f"family {name} needs exactly one of {', '.join(KINDS)}")
    kind, value = kinds[0], body[kinds[0]]
    _refuse_unknown(body, {kind, "arms"} if kind == "against" else {kind}, f"family {name}: ", AnalysisError)
    if kind == "against":
        shaped(body, Against, "against is the name of an arm, arms is a list of such names")
        return Family(name, kind, arms=_plain(body.get("arms") or ()), reference=plain(value))
    if kind == "ladder":
        shaped(value, list[str], "a ladder is a list of at least two arms")
        if len(value) < 2:
            raise AnalysisError(f"family {name}: a ladder is a list of at least two arms")
        return Family(name, kind, arms=_plain(value))
    if kind == "pairs":
        shaped(value, list[tuple[str, str]], "pairs are lists [variant, reference]")
        return Family(name, kind, pairs=tuple((plain(a), plain(b)) for a, b in value))
    shaped(value, Cells, "a factorial names the arms of its four cells, and with `names` its two factors")
    _refuse_unknown(value, {*CELLS, "names"}, f"family {name}: ", AnalysisError)
    if missing := [cell for cell in CELLS if cell not in value]:
        raise AnalysisError(f"family {name}: the factorial lacks {', '.join(missing)}")
    first, second = _plain(value.get("names") or ("first factor", "second factor"))
    if first == second:
        raise AnalysisError(f"family {name}: its two factors have one name")
    return Family(name, kind, arms=_plain([value[cell] for cell in CELLS]), names=(first, second))


def _sequential(body: dict[str, Any], block: dict[str, Any]) -> Sequential:
    """Raises AnalysisError."""
    _refuse_unknown(body, {"looks", "spending", "statistic"}, "sequential: ", AnalysisError)
    looks = body.get("looks")
    try:
        check_shape(looks, list[Annotated[int, Meta(ge=2, le=MOST_SEEDS)]], "looks")
    except Damaged as error:
        raise AnalysisError(f"sequential: looks are numbers of seeds from 2 to {MOST_SEEDS}: [8, 10, 12]") from error
    if len(looks) < 1 or any(b <= a for a, b in pairwise(looks)):
        raise AnalysisError("sequential: looks are rising numbers of seeds, such as [8, 10, 12]")
    chosen = {}
    for key, known in (("spending", SPENDING), ("statistic", STATISTICS)):
        chosen[key] = body.get(key, known[0])
        if chosen[key] not in known:
            raise AnalysisError(f"sequential: unknown {key} {plain(repr(chosen[key]))}: choose {' or '.join(known)}")
    if not block.get("families"):
        raise AnalysisError("sequential: a study that stops by its verdicts declares its families")
    if block.get("seeds") is not None and limits.seeds(block["seeds"]) != looks[-1]:
        raise AnalysisError(
            f"sequential: the last look is at {looks[-1]} seeds, `seeds` says {block['seeds']}: leave it out"
        )
    return Sequential(tuple(looks), **chosen)


def _published(body: dict[str, Any]) -> Published:
    """Raises AnalysisError."""
    _refuse_unknown(body, {"source", "data", "model", "arms"}, "published: ", AnalysisError)
    try:
        check_shape(body, PublishedBlock, "published")
    except Damaged as error:
        raise AnalysisError(
            f"{one_line(str(error))}: source, data and model are texts, arms has for each arm {{metric: [a value a run]}}"
        ) from error
    arms = {
        plain(arm): {
            metric(name).column: tuple(limits.outcome(name, v) for v in values) for name, values in numbers.items()
        }
        for arm, numbers in body["arms"].items()
    }
    return Published(one_line(body["source"]), body["data"], body["model"], arms)


def _plain(names: Any) -> tuple[str, ...]:
    return tuple(map(plain, names))


def read_study(path: str | Path) -> Study:
    """The study block of a sweep's YAML file."""
    from harness.store.yaml_file import read_yaml

    path = Path(path)
    try:
        content = read_yaml(path)
    except Damaged as error:
        raise AnalysisError(one_line(str(error))) from error
    if content is None:
        raise AnalysisError(f"no such study file: {path}")
    if not isinstance(content, dict) or "study" not in content:
        raise AnalysisError(f"{path} has no block `study:`")
    return parse(content["study"], path.name)


def outside(frame: pd.DataFrame, study: Study) -> list[str]:
    """The runs whose own record does not declare this very study: what decides must have been said before they ran."""
    wanted = _decisive(study)
    known: dict[str, bool] = {}
    found = []
    for run, config in zip(frame["run"], frame["config"], strict=True):
        block = config.get("study")
        text = json.dumps(block, sort_keys=True)
        if text not in known:
            with contextlib.suppress(AnalysisError):  # what is no study declares nothing
                known[text] = bool(block) and _decisive(parse(block, "records")) == wanted
            known.setdefault(text, False)
        if not known[text]:
            found.append(run)
    return found


def beyond(frame: pd.DataFrame, study: Study) -> list[str]:
    """Where another number of seeds has run than the study declared, in words: to look now and later is to look twice."""
    lines = []
    for (data, model), block in frame.groupby(["data", "model"], sort=True) if study.seeds else ():
        count = block["seed"].nunique()
        if count > study.seeds:
            lines.append(
                f"{data} x {model}: the study declared {study.seeds} seeds and {count} have run; to look again with more "
                "seeds finds what is not there more often than its level says."
            )
        elif count < study.seeds:
            lines.append(
                f"{data} x {model}: {count} of the {study.seeds} seeds have run that the study declared; who looks now and "
                "again when all are there finds what is not there more often than its level says."
            )
    return lines


def _decisive(study: Study) -> dict[str, Any]:
    return {f.name: getattr(study, f.name) for f in fields(Study) if f.name not in UNDECISIVE}


def study_of(frame: pd.DataFrame) -> Study:
    """The study that the records declare; an empty one where none does.

    Raises AnalysisError where they declare several: choose one with --study FILE.
    """
    blocks: dict[str, Any] = {}
    silent = 0
    for config in frame["config"]:
        block = config.get("study")
        if block:
            blocks[json.dumps(block, sort_keys=True)] = block
        else:
            silent += 1
    if not blocks:
        return Study()
    if len(blocks) > 1:
        names = "; ".join(
            str(b.get("question") or b.get("name") or "?") if isinstance(b, dict) else str(b) for b in blocks.values()
        )
        raise AnalysisError(
            f"the records declare {len(blocks)} different studies ({one_line(names)}): choose one with --study FILE"
        )
    if silent:
        warnings.warn(
            f"{silent} of {len(frame)} runs were made outside the declared study",
            AnalysisWarning,
            stacklevel=3,
        )
    return parse(next(iter(blocks.values())), "records")
