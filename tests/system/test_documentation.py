"""The documentation: pages that build, lists that are whole, commands that work."""

from __future__ import annotations

import argparse
import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import griffe
import pandas as pd
import pytest
import yaml
from running import ENVIRONMENT, ROOT, Run

import hedypet_bids
from hedypet_bids.group.dictionary import TABLES
from hedypet_bids.io.sidecars import read_sidecar
from hedypet_bids.labels import CT_TASKS, MR_TASKS, SEGMENTATION_TASKS
from hedypet_bids.settings import Settings, allowed

sys.path.insert(0, str(ROOT / "scripts"))
import docs_hooks
import docs_reference

DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(ROOT / folder / "README.md" for folder in ("deploy/slurm", "reconstructions")),
    *sorted(DOCS.glob("*.md")),
]
SHELLS = {"bash", "sh", "console"}
# Languages whose blocks show something instead of doing it.
SHOWN = {"text", "toml", "json", "yaml", "math", "bibtex", "dockerfile", "ini", "html"}


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --- the pages ---------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """The code, the addresses loaded, and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.code: set[str] = set()
        self.loaded: list[str] = []
        self.targets: set[str] = set()
        self._open: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "code":
            self._open = []
        if tag in ("script", "img", "iframe", "source", "link"):
            self.loaded += [value for key in ("src", "href", "srcset") if (value := named.get(key))]
        if name := named.get("id"):
            self.targets.add(name)

    def handle_endtag(self, tag: str) -> None:
        if tag == "code" and self._open is not None:
            self.code.add("".join(self._open))
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = _mkdocs(ROOT, folder)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr, built.stderr
    return folder


def _mkdocs(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    # Not --quiet: what is not said does not count as a warning either.
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


def _page(site: Path, name: str) -> _Page:
    return _Page((site / f"{name}.html").read_text("utf-8"))


def test_every_promise_has_a_test_that_exists() -> None:
    rows = [row for row in (DOCS / "promises.md").read_text("utf-8").splitlines() if row.startswith("| ")]
    promises = [row for row in rows if row != "| promise | test |"]
    assert len(promises) > 50
    for promise in promises:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", promise.split("|")[2])
        assert named and len(named) == promise.split("|")[2].count("`") / 2, promise
        for file, test in named:
            assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text("utf-8"), re.MULTILINE), (
                test
            )


@pytest.mark.slow
def test_pages_load_nothing_from_the_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 15
    outside = re.compile(r"^(https?:)?//")
    for page in pages:
        parsed = _Page(page.read_text("utf-8"))
        assert parsed.loaded
        assert not [address for address in parsed.loaded if outside.match(address)], page
    styles = [path.read_text("utf-8") for path in site.rglob("*.css")]
    assert styles
    assert not [
        found for text in styles for found in re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", text)
    ]


@pytest.mark.slow
def test_no_page_is_left_with_a_placeholder_or_a_raw_formula(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert "<!-- generated" not in text, page
        assert "\\frac" not in text, page
        assert "language-math" not in text, page
    assert "<math" in (site / "methods.html").read_text("utf-8")


@pytest.mark.slow
def test_usage_lists_every_flag_and_no_other(site: Path) -> None:
    helped = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    flag = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
    # Of each argument only the words before its explanation: two spaces part them.
    real = {
        f
        for line in helped.splitlines()
        if re.match(r"  -", line)
        for f in flag.findall(line.strip().split("  ")[0])
    }
    assert "--participant-label" in real
    page = (site / "usage.html").read_text("utf-8")
    own = page[page.index('id="the-command-line"') : page.index('id="environment"')]
    listed = {
        f for term in re.findall(r"<dt[^>]*>(.*?)</dt>", own) for f in flag.findall(re.sub("<.*?>", "", term))
    }
    assert listed == real


@pytest.mark.slow
def test_usage_lists_the_flags_of_the_other_programs(site: Path) -> None:
    targets = _page(site, "usage").targets
    programs = docs_reference.parsers()
    assert {"hedypet", "hedypet-phantom", "hedypet-weights", "hedypet-worker"} <= set(programs)
    for program, parser in programs.items():
        for name, command in {"": parser, **docs_reference.subcommands(parser)}.items():
            prefix = "-".join(filter(None, ["" if program == "hedypet" else program, name]))
            for action in command._actions:
                if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
                    continue
                label = max(action.option_strings, key=len, default=action.dest).lstrip("-")
                assert "-".join(filter(None, [prefix, label])) in targets, (program, label)


def test_every_parameter_of_the_settings_is_explained() -> None:
    text = docs_reference.settings_parameters()
    rows = {cells[0].strip("`"): cells[1:] for cells in _rows(text.splitlines())}
    for name in allowed():
        section, _, parameter = name.rpartition(".")
        assert f"#### [{section}]" in text
        default, values, meaning = rows[parameter]
        assert default and values
        assert meaning[0] in "`ABCDEFGHIJKLMNOPQRSTUVWXYZ" and meaning[-1] == ".", name
    assert rows["last_frames"][:2] == [
        "`[2, 3, 4, 5, 6, 7, 8]`",
        "a list, none twice, each a whole number from 2 to 1000",
    ]
    assert rows["rule"][:2] == ['`"auto"`', '"auto" or "simpson" or "frames"']


@pytest.mark.slow
def test_outputs_names_every_column_of_the_group_tables(site: Path) -> None:
    assert {column for columns in TABLES.values() for column in columns} <= _page(site, "outputs").code


# --- the API -----------------------------------------------------------------------------------------

API = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE)
# Public names without an example of their own: parts of others that have one, and sections of the settings.
_WITHOUT_EXAMPLE = {
    "Output", "ScanEntry", "StepRecord", "RegionSet", "RegionStats", "JointLabels", "PatlakFit",
    "KineticModel", "Person", "PetMetadata", "Source",
}  # fmt: skip


@pytest.fixture(scope="module")
def package() -> griffe.Module:
    found = griffe.load("hedypet_bids", search_paths=[ROOT])
    assert isinstance(found, griffe.Module)
    return found


def test_the_api_has_every_public_name() -> None:
    documented = {name.rpartition(".")[2] for name in API}
    assert set(hedypet_bids.__all__) - {"__version__"} <= documented
    assert {type(getattr(Settings(), section.split(".")[0])).__name__ for section in allowed()} <= documented


@pytest.mark.parametrize("name", API)
def test_docstrings_of_the_api_are_whole(package: griffe.Module, name: str) -> None:
    found = package[name.removeprefix("hedypet_bids.")]
    public = [found]
    if isinstance(found, griffe.Class):
        public += [m for m in found.members.values() if m.is_function and not m.name.startswith("_")]
        assert all(member.docstring for member in found.members.values() if "property" in member.labels)
    for each in public:
        assert each.docstring, each.path
        sections = {section.kind.value: section.value for section in each.docstring.parse("numpy")}
        described = [*sections.get("parameters", ()), *sections.get("attributes", ())]
        names = {name.strip("* ") for entry in described for name in entry.name.split(",")}
        assert names >= _parameters(each), each.path
        if isinstance(each, griffe.Function) and str(each.returns) != "None":
            assert "returns" in sections, each.path
    section_of_settings = found.name.endswith("Settings") or found.name == "Selection"
    if found.name not in _WITHOUT_EXAMPLE and (found.name == "Settings" or not section_of_settings):
        assert ">>>" in found.docstring.value, name


def _parameters(found: griffe.Object) -> set[str]:
    """The parameters of a function, the fields of a dataclass."""
    if isinstance(found, griffe.Function):
        names = [parameter.name.strip("*") for parameter in found.parameters]
    elif "dataclass" in found.labels:
        fields = [m for m in found.members.values() if m.is_attribute and "property" not in m.labels]
        names = [field.name for field in fields]
    else:
        names = []
    return {name for name in names if name not in ("self", "cls") and not name.startswith("_")}


@pytest.mark.slow
def test_examples_of_the_api_hold(coarse_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _folder_of_a_page(tmp_path, coarse_run)
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner()
    for name in API:
        module = importlib.import_module(name.rpartition(".")[0])
        public = getattr(module, name.rpartition(".")[2])
        for example in doctest.DocTestFinder().find(public, name, module, globs=dict(vars(module))):
            runner.run(example)
    assert runner.tries > 40
    assert not runner.failures


def test_every_page_is_in_the_navigation_and_there() -> None:
    nav = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert len(nav) == len(set(nav))
    pages = {path.name for path in DOCS.glob("*.md")}
    assert pages | set(docs_hooks.PAGES_FROM) | {"tutorial.md"} == set(nav)


@pytest.mark.slow
def test_a_page_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for name in ("docs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    (tmp_path / "mkdocs.yml").write_text(text.replace(": platforms.md", ": not-there.md"), "utf-8")
    built = _mkdocs(tmp_path, tmp_path / "site")
    assert built.returncode != 0 and "not-there.md" in built.stderr, built.stderr


# --- the lists against a real run --------------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """A row of a list of files on the page of outputs."""

    pattern: str
    name: re.Pattern[str]
    sidecar: bool
    columns: str
    """The heading of the table of its columns, as an anchor."""


def _kinds(bids: Path) -> list[_Kind]:
    """Every kind of file, its name as a pattern for the outputs of this dataset."""
    found = []
    tables = (DOCS / "outputs.md").read_text("utf-8").split("\n| file | what it holds | there when |\n")[1:]
    for cells in (row for table in tables for row in _rows(["|", *table.partition("\n\n")[0].splitlines()])):
        name = re.match(r"`([^`]+)`( \+ `\.json`)?$", cells[0])
        anchor = re.search(r"\]\(#([\w-]+)\)", cells[1])
        assert name, cells
        columns = anchor[1] if anchor and anchor[1] in _columns() else ""
        found.append(_Kind(name[1], re.compile(_pattern(name[1], bids)), bool(name[2]), columns))
    assert len(found) > 50
    return found


def _columns() -> dict[str, list[list[str]]]:
    """The tables of columns of a participant's files: name, meaning and unit by the anchor of the heading."""
    text = (DOCS / "outputs.md").read_text("utf-8")
    text = text[text.index("\n## Columns\n") : text.index("\n## Quality checks\n")]
    return {
        re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")): list(_rows(part.splitlines()))
        for title, _, part in (section.partition("\n") for section in text.split("\n### ")[1:])
    }


def _rows(lines: Iterable[str]) -> Iterator[list[str]]:
    """The cells of the rows of Markdown tables, without their heads."""
    for before, line in pairwise(["", *lines]):
        if line.startswith("|") and before.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def _pattern(text: str, bids: Path) -> str:
    images = {
        "ct": "ct/*_ct",
        "topogram": "ct/*_Xray",
        "mr": "anat/*_T1w",
        "static": "pet/*acstat*_pet",
        "dynamic": "pet/*acdyn*_pet",
    }
    label = "[a-zA-Z0-9]+"
    meanings = {
        "L": label,
        "S": label,
        "T": label,
        "R": label,
        "body": "bodystat|bodydyn",
        "ct task": _one_of(task.name for task in CT_TASKS),
        "mr task": _one_of(task.name for task in MR_TASKS),
        "aorta task": "aorta|aortavoi[a-z0-9]+",
        "page": f"sub-{label}",
        "model": label,
        "parameter": label,
        "task": _one_of(
            [*(t.name for t in SEGMENTATION_TASKS), "aorta", "totalimage", "(?:aorta|heart)voi[a-z0-9]+"]
        ),
        "voi": "aortavoi(?:[a-z0-9]+px|combined)|heartvoi1ml",
        "segment": "ascending|top|right|descending(?:upper|lower)?",
        "readout": _one_of(TABLES),
        "picture": "[a-zA-Z0-9]+",
        "run": r"[\w-]+",
        "program": r"\w+",
        "step": r"[\w-]+",
        **{
            name: _one_of(
                {p.name.split(".")[0].rpartition("_")[0] for p in bids.glob(f"sub-*/**/{where}.nii.gz")}
            )
            for name, where in images.items()
        },
    }
    pattern = ""
    for part in re.split(r"(<[^>]+>|\[[^\]]+\])", text):
        if part.startswith("<"):
            pattern += f"(?:{meanings[part[1:-1]]})"
        elif part.startswith("["):
            pattern += f"(?:{re.escape(part[1:-1])})?"
        else:
            pattern += re.escape(part)
    return pattern


def _one_of(names: object) -> str:
    return "|".join(sorted(names))  # type: ignore[call-overload]


def _written(run: Run) -> Iterator[str]:
    for path in sorted(run.output.rglob("*")):
        if path.is_file():
            yield path.relative_to(run.output).as_posix()


@pytest.mark.slow
def test_outputs_lists_every_file_that_a_run_writes(phantom_run: Run) -> None:
    kinds = _kinds(phantom_run.bids)
    written = list(_written(phantom_run))
    sidecars = {
        name.split(".")[0] + ".json"
        for kind in kinds
        if kind.sidecar
        for name in written
        if kind.name.fullmatch(name)
    }
    assert len(sidecars) > 100
    unlisted = [n for n in written if n not in sidecars and not any(k.name.fullmatch(n) for k in kinds)]
    assert not unlisted
    assert sidecars <= set(written)


# What a run on the phantom has no reason to write.
_SELDOM = (
    "synthsegvolumes", "recording-measured",
    "<R>mean", "desc-suv", "<program>", "crash-", "part-0.parquet", "res-1mm_[desc",
)  # fmt: skip


@pytest.mark.slow
def test_outputs_lists_no_file_that_is_never_written(phantom_run: Run) -> None:
    written = list(_written(phantom_run))
    for kind in _kinds(phantom_run.bids):
        if not any(part in kind.pattern for part in _SELDOM):
            assert any(kind.name.fullmatch(name) for name in written), kind.pattern


@pytest.mark.slow
def test_outputs_lists_every_column_as_the_sidecar_tells_it(phantom_run: Run) -> None:
    checked = set()
    tables = [kind for kind in _kinds(phantom_run.bids) if kind.columns]
    for name in _written(phantom_run):
        kind = next((kind for kind in tables if kind.name.fullmatch(name)), None)
        if kind is None or kind.columns in checked:
            continue
        checked.add(kind.columns)
        path = phantom_run.output / name
        found = list(pd.read_csv(path, sep="\t").columns)
        listed = [(cells[0].strip("`"), *cells[1:]) for cells in _columns()[kind.columns]]
        if listed[-1][0] == "<region>":
            assert len(found) > len(listed), name
            found, listed = found[: len(listed) - 1], listed[:-1]
        assert found == [column for column, _, _ in listed], name
        told = read_sidecar(path) if kind.sidecar else {}
        for column, meaning, unit in listed:
            if column in told:
                entry = told[column]
                assert (meaning, unit) == (entry["Description"], entry.get("Units", "")), (name, column)
    # SynthSeg's own volumes are written only where the program runs, sampled blood where there are samples.
    assert checked == set(_columns()) - {"synthsegs-volumes", "sampled-blood"}


@pytest.mark.slow
def test_columns_of_the_readouts_are_those_of_the_files(phantom_run: Run) -> None:
    for table, columns in TABLES.items():
        assert list(pd.read_parquet(phantom_run.output / f"readouts/{table}.parquet").columns) == list(
            columns
        )


# --- blocks of code ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    language: str
    text: str
    line: int
    reason: str


_FENCE = re.compile(r"^( *)```+ *(\w*)[^\n]*\n(.*?)^\1```+ *$", re.MULTILINE | re.DOTALL)
_REASON = re.compile(r"<!-- not run: (\S.*?) -->[ \t]*\n[ \t]*\Z")
_LIST_ITEM = re.compile(r" *([-*+]|\d+\.) ")


def _blocks(page: Path) -> list[_Block]:
    text = page.read_text("utf-8")
    blocks = []
    for found in _FENCE.finditer(text):
        marker = _REASON.search(text[: found.start()] + found[1])
        line = text.count("\n", 0, found.start()) + 1
        blocks.append(_Block(found[2], found[3], line, marker[1] if marker else ""))
    return blocks


def _indented_code(page: Path) -> list[str]:
    """First lines of code that is marked by indentation only, which has no language."""
    lines = _FENCE.sub("", page.read_text("utf-8")).splitlines()
    found, above = [], ""
    for before, line in pairwise(lines):
        if before.strip():
            above = before
        listed = _LIST_ITEM.match(above) or above.startswith(" ")
        if not before.strip() and line.startswith("    ") and not listed:
            found.append(line)
    return found


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_names_its_language_or_why_it_is_not_run(page: Path) -> None:
    for block in _blocks(page):
        known = block.language in SHELLS | {"python"} | SHOWN
        assert known or block.reason, f"{page.name}:{block.line}: a block of language {block.language!r}"
    assert not _indented_code(page), "use ``` with a language"


def test_blocks_and_reasons_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: too large -->\n```bash\nrm x\n```\n\n<!-- not run: old -->\n\n```python\na = 1\n```\n"
        "\n- item\n\n      in a list\n\ntext\n\n    print(1)\n\n```console\n$ ls\nfile\n```\n"
    )
    blocks = _blocks(page)
    assert [(b.language, b.reason, b.line) for b in blocks] == [
        ("bash", "too large", 2), ("python", "", 8), ("console", "", 20),
    ]  # fmt: skip
    assert _commands(blocks[2]) == "ls"
    assert _indented_code(page) == ["    print(1)"]


def _runs(page: Path) -> list[_Block]:
    return [b for b in _blocks(page) if b.language in SHELLS | {"python"} and not b.reason]


def _folder_of_a_page(folder: Path, run: Run) -> None:
    """The repository's entries as links, a phantom as BIDS_DIR and its finished output as OUTPUT_DIR."""
    for entry in ROOT.iterdir():
        if entry.name not in (".git", ".venv", "build", "demo"):
            (folder / entry.name).symlink_to(entry)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "BIDS_DIR").symlink_to(run.bids)
    shutil.copytree(run.output, folder / "OUTPUT_DIR", copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    """Images are replaced, never changed, so that a link is as good as a copy."""
    if source.endswith(".nii.gz"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _commands(block: _Block) -> str:
    if block.language != "console":
        return block.text
    return "\n".join(line[2:] for line in block.text.splitlines() if line.startswith("$ "))


# hedypet-phantom, whose images are coarse, in few frames and without MR, whatever it is asked for.
_COARSE_PHANTOM = f"""#!{sys.executable}
import sys

from coarse_phantom import COARSE, FRAMES

from hedypet_bids.cli import phantom


def coarse(out, *, participants, size, frames, **given):
    without = {{f"{{number:03}}": ("mr", "topogram") for number in range(1, participants + 1)}}
    return write(out, participants=participants, size=COARSE, frames=FRAMES, without=without, **given)


write, phantom.write_phantom = phantom.write_phantom, coarse
sys.exit(phantom.main())
"""


@pytest.fixture
def _one_cpu() -> Iterator[None]:
    """One CPU for what a test starts: a run then has no worker processes, which all import everything."""
    cpus = sorted(os.sched_getaffinity(0))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {cpus[number % len(cpus)]})
    yield
    os.sched_setaffinity(0, cpus)


# What newcomers copy first is run in every set.
_FIRST_PAGES = (
    "README.md",
    "docs/quickstart.md",
    "docs/own-curves.md",
    "docs/add-a-model.md",
    "docs/add-a-step.md",
)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_cpu")
@pytest.mark.parametrize(
    "page",
    [
        page if _name(page) in _FIRST_PAGES else pytest.param(page, marks=pytest.mark.exhaustive)
        for page in PAGES
        if _runs(page)
    ],
    ids=_name,
)
def test_blocks_run(page: Path, coarse_run: Run, tmp_path: Path) -> None:
    program = tmp_path / "coarse" / "hedypet-phantom"
    program.parent.mkdir()
    program.write_text(_COARSE_PHANTOM)
    program.chmod(0o755)
    bids = Path(shutil.copytree(coarse_run.bids, tmp_path / "coarse" / "bids", copy_function=os.link))
    # What the README names must be there; without MR it is not read.
    ready = bids / "derivatives" / "synthseg" / "sub-001" / "sub-001_acq-MPRAGE_seg-synthseg_dseg.nii.gz"
    ready.parent.mkdir(parents=True)
    ready.touch()
    _run_blocks(page, replace(coarse_run, bids=bids), tmp_path, program.parent)


@pytest.mark.exhaustive
@pytest.mark.parametrize("page", [page for page in PAGES if _runs(page)], ids=_name)
def test_blocks_run_on_complete_scans(page: Path, phantom_run: Run, tmp_path: Path) -> None:
    _run_blocks(page, phantom_run, tmp_path)


def _run_blocks(page: Path, run: Run, tmp_path: Path, *programs: Path) -> None:
    """Run the blocks of a page one after another, in a folder of their own; every one must end well."""
    _folder_of_a_page(tmp_path, run)
    path = os.pathsep.join(map(str, (*programs, Path(sys.executable).parent, os.environ["PATH"])))
    environment = {**ENVIRONMENT, "PATH": path, "MPLBACKEND": "agg"}
    before = ""
    for block in _runs(page):
        if block.language == "python":
            command = [sys.executable, "-c", before + block.text]
            before += block.text
        else:
            command = ["bash", "-euo", "pipefail", "-c", _commands(block)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        said = (done.stdout + done.stderr)[-3000:]
        assert done.returncode == 0, f"{page.name}:{block.line} ended with {done.returncode}:\n{said}"


# --- the citation ------------------------------------------------------------------------------------


def test_the_citation_file_is_whole() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license", "type"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == (ROOT / "version").read_text().strip()
    titles = " ".join(entry["title"] for entry in citation["references"])
    for cited in ("hedyPET", "nifti_dynamic", "TotalSegmentator", "SynthSeg", "brain imaging data structure"):
        assert cited in titles, cited
    for entry in citation["references"]:
        assert {"type", "title", "authors"} <= set(entry), entry
        assert re.fullmatch(r"10\.\d{4,}/\S+", entry.get("doi", "10.1234/x")), entry
