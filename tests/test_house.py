"""The house stays small, and what the README says is true."""

from __future__ import annotations

import ast
import re
import sqlite3
import sys
import tomllib
from contextlib import closing
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest
from msgspec.structs import fields

from jobs import __version__
from jobs.cli import cli
from jobs.config.settings import Settings, load_settings
from jobs.core.causes import ADVICE
from jobs.core.errors import EXIT_WORDS
from jobs.core.model import Cause
from jobs.manifest.layout import ROLES
from jobs.reports.cards import CARDS, SECTIONS, WHY_STOPPED
from jobs.reports.columns import FAILURES, RESULTS
from jobs.sandbox.world import Place
from tests.docs import called_by, commands_of, python_under
from tests.helpers.job import CLIENT_ID

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = sorted(PROJECT.glob("jobs/**/*.py"))
READMES = {
    str(file.parent.relative_to(PROJECT)): file.read_text(encoding="utf-8")
    for file in (PROJECT / "README.md", *PROJECT.glob("[a-z]*/**/README.md"))
}
# From the top of the house to the bottom: a room imports only from the rooms after it. `sandbox` is separate.
ORDER = [
    "__main__", "cli", "tables", "options", "discover", "check", "recover", "deliver", "purge", "open_pairs", "seal", "ledger_copy", "report", "monitor", "plan", "leases", "terminal", "recovery", "start", "reports", "outgoing",
    "ledger", "sealing", "highlevel", "system", "manifest", "config", "pace", "core", "sandbox", "__init__",
]  # fmt: skip


@cache
def _tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PROJECT)))
def test_the_functions_of_a_room_are_small(room):
    for node in ast.walk(_tree(room)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 40, node.name


def test_the_sandbox_imports_nothing_of_the_job():
    for room in (PROJECT / "jobs" / "sandbox").glob("*.py"):
        for node in ast.walk(_tree(room)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jobs"):
                assert node.module.startswith("jobs.sandbox")


@cache
def _imports(room, *, for_types=False):
    """The names that `room` imports from the job, also within functions; those for types alone only where asked for."""

    def found(node):
        for child in ast.iter_child_nodes(node):
            only_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            if only_types and not for_types:
                continue
            if isinstance(child, ast.ImportFrom) and child.module and child.module.split(".")[0] == "jobs":
                yield from (f"{child.module}.{name.name}" for name in child.names)
            assert not isinstance(child, ast.Import) or not any(name.name.startswith("jobs") for name in child.names)
            yield from found(child)

    return [*found(_tree(room))]


def _room_of(file):
    return file.relative_to(PROJECT / "jobs").with_suffix("").parts[0]


@pytest.mark.parametrize("file", ROOMS, ids=lambda file: str(file.relative_to(PROJECT)))
def test_a_room_imports_only_from_rooms_below_it(file):
    me = _room_of(file)
    for module in _imports(file, for_types=True):
        other = module.split(".")[1]
        if other not in (me, "__version__"):
            assert ORDER.index(other) > ORDER.index(me), f"{me} imports {module}, which stands above it"


def test_every_room_has_its_place_in_the_order():
    assert sorted(ORDER) == sorted({_room_of(file) for file in ROOMS})


def test_no_modules_import_each_other_in_a_circle():
    names = {
        ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): file for file in ROOMS
    }
    # The import of `jobs.reports.tables.own_cells` is an import of `jobs.reports.tables`.
    below = {
        name: {one if one in names else one.rpartition(".")[0] for one in _imports(file)} - {name, "jobs"}
        for name, file in names.items()
    }
    assert [*TopologicalSorter(below).static_order()]


DOORS = {
    file.parent.name: ast.literal_eval(node.value)
    for file in PROJECT.glob("jobs/*/__init__.py")
    for node in _tree(file).body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
}


@pytest.mark.parametrize("room", DOORS)
def test_what_a_door_opens_is_what_others_use(room):
    """A door says what its room promises, and names the modules that others may import from; all else is the room's own."""
    door = PROJECT / "jobs" / room / "__init__.py"
    assert len(ast.get_docstring(_tree(door))) > 100
    used = {
        module.split(".")[2]
        for file in (*ROOMS, *PROJECT.glob("tests/bench/*.py"))
        if file.is_relative_to(PROJECT / "tests") or _room_of(file) != room
        for module in _imports(file, for_types=True)
        if module.startswith(f"jobs.{room}.")
    }
    assert used == {*DOORS[room]}


def test_what_the_job_imports_and_what_it_declares_are_the_same():
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    named = {re.match(r"[\w.-]+", one)[0]: one for one in declared}
    trees = [*map(_tree, ROOMS)]
    modules = {
        module.split(".")[0]
        for node in (node for tree in trees for node in ast.walk(tree))
        for module in (
            [name.name for name in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    outside = modules - sys.stdlib_module_names - {"jobs"}
    known = packages_distributions()
    # SQLAlchemy imports it by the name in `postgresql+psycopg`.
    by_its_dialect = {"psycopg"}
    by_module = {
        module: {name.lower().replace("_", "-") for name in known[module]} & {*named}
        for module in outside | by_its_dialect
    }
    assert all(by_module.values()), by_module
    assert set().union(*by_module.values()) == {*named}
    assert all(">=" in one for one in declared)


def _table(folder, header):
    """The rows of the table with this first cell in its header, in the README of a folder; a cell of code without its marks."""
    _, _, rest = READMES[folder].partition(f"\n| {header} | ")
    lines = rest.split("\n\n", 1)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [[re.sub(r"^`([^`]*)`$", r"\1", cell) for cell in row] for row in cells]


def test_the_readme_has_every_option_and_no_other():
    options = {row[0].split()[0]: row[0].split()[1:] for row in _table("config", "option")}
    found = {param.opts[0]: param for param in cli.commands["run"].params if isinstance(param, click.Option)}
    assert options.keys() == found.keys()
    for name, rest in options.items():
        assert bool(rest) is not found[name].is_flag
    commands = re.findall(r"`recover ([^`]+)`", READMES["config"].partition("\nCommands: ")[2].split("\n\n")[0])
    told = {called_by(words)[0]: words for words in commands if not words.startswith("-")}
    known = dict(commands_of())
    assert told.keys() == known.keys()
    for name, words in told.items():
        options = [param for param in known[name].params if isinstance(param, click.Option)]
        mine = {option.opts[0] for option in options if not option.hidden}
        assert name == "run" or set(re.findall(r"--[a-z-]+", words)) == mine - {"--output"}


def test_the_readme_has_every_exit_code_in_the_words_of_the_job():
    assert [row[:2] for row in _table(".", "code")] == [
        [str(int(code)), words] for code, words in sorted(EXIT_WORDS.items())
    ]


def test_the_readme_has_every_reason_for_a_stop():
    assert [row[0] for row in _table("data", "`stopped_because`")] == [*WHY_STOPPED]


def test_support_staff_find_every_cause_in_the_order_and_the_words_of_the_page():
    assert _table("jobs/reports", "cause") == [
        [cause.value, CARDS[cause].title, owner.value, ADVICE[cause].next_step]
        for owner in SECTIONS
        for cause in Cause
        if ADVICE[cause].owner is owner
    ]


def test_the_readme_has_every_column_in_order():
    assert [row[0] for row in _table("data", "column")] == [*ROLES]
    for name, columns in (("results.csv", RESULTS), ("failures.csv", FAILURES)):
        listed = re.search(rf"^`{name}` has these columns:(.+?),\sthen\s", READMES["data"], re.MULTILINE | re.DOTALL)[1]
        assert re.findall(r"`(\w+)`", listed) == [column.name for column in columns]


def test_the_readme_names_the_causes_that_a_run_tries_again():
    (named,) = re.findall(r"^- A run tries (`.+`) again by itself, (\w+) times", READMES["data"], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", named[0])) == {cause.value for cause, advice in ADVICE.items() if advice.again}
    assert (named[1], Settings().retry.attempts) == ("five", 5)


def test_the_readme_has_every_file_that_a_run_leaves(play):
    job = play(default="not_installed")
    job.run(job.manifest("location_id\nLocA\n"))
    left = {file.name for file in job.output.iterdir() if not file.name.startswith(".")}
    assert {row[0] for row in _table("data", "file")} == {
        name for name in left if not name.startswith("ledger.sqlite3-")
    }


def test_what_the_readme_says_about_loading_pairs_works(play, tmp_path):
    code = python_under("data/README.md", "Load the pairs into your app")
    load = {}
    exec(compile(code, "data/README.md", "exec"), load)  # It is ours.
    job = play({"LocB": Place("not_installed"), "CoA": Place(level="Company")})
    job.run(job.manifest("location_id,company_id\nLocA,\nLocB,\nLocC,\n,CoA\n"))
    old, later = "2020-01-01T00:00:00.000Z", "2999-01-01T00:00:00.000Z"
    with closing(sqlite3.connect(tmp_path / "app.sqlite3")) as app:
        app.execute("create table tokens (client_id, account_id, access_token, refresh_token, expires_at, updated_at)")
        rows = [
            (CLIENT_ID, one, "a", "r", "", later if one == "LocC" else old) for one in ("LocA", "LocB", "LocC", "CoA")
        ]
        app.executemany("insert into tokens values (?, ?, ?, ?, ?, ?)", rows)
        load["load"](app, job.output / "results.csv")
        found = dict(app.execute("select account_id, access_token || ' ' || refresh_token from tokens"))
    back = {one: f"{row['access_token']} {row['refresh_token']}" for one, row in job.results().items()}
    assert found == {"LocA": back["LocA"], "LocB": "a r", "LocC": "a r", "CoA": back["CoA"]}


def test_the_settings_file_has_every_key_with_its_default_and_says_what_it_is():
    text = (PROJECT / "config" / "recovery.toml").read_text(encoding="utf-8")
    keys = {section: {*held} for section, held in tomllib.loads(text).items()}
    assert keys == {one.name: {key.name for key in fields(one.type)} for one in fields(Settings)}
    assert load_settings(PROJECT / "config" / "recovery.toml", {}, {}) == Settings()
    for line in text.splitlines():
        assert not re.match(r"\w", line) or re.search(r"# \w", line), line


def test_the_tables_of_settings_have_every_key_with_its_default():
    tables = re.findall(r"^\| key \| means \|\n.*\n((?:\|.*\n)+)", READMES["config"], re.MULTILINE)
    sections = [Settings().deliver, Settings().seal, Settings().ledger]
    assert [re.findall(r"^\| `(\w+)`", table, re.MULTILINE) for table in tables] == [
        [key.name for key in fields(section)] for section in sections
    ]
    for table, section in zip(tables, sections, strict=True):
        for key in fields(section):
            default = getattr(section, key.name)
            row = re.search(rf"^\| `{key.name}` \|.*$", table, re.MULTILINE)[0]
            if isinstance(default, int | float):
                assert f"({default:g})" in row


def test_the_version_is_that_of_the_changelog_and_the_readme_is_short():
    newest = re.search(r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert newest in {__version__, "Unreleased"}
    assert project["version"] == __version__
    assert len(READMES["."].splitlines()) <= 150


def test_the_readme_names_every_variable_that_the_job_reads():
    read = {name for room in ROOMS for name in re.findall(r"\bHIGHLEVEL_[A-Z_]+\b", room.read_text(encoding="utf-8"))}
    named = {name for row in _table("config", "variable") for name in re.findall(r"[A-Z_]{5,}", row[0])}
    assert read == {name for name in named if name.startswith("HIGHLEVEL_")}


def test_the_layout_of_the_code_is_told_from_top_to_bottom():
    assert [row[0] for row in _table("jobs", "room")] == [room for room in ORDER if "__" not in room]


@pytest.mark.parametrize("row", _table("jobs", "new"), ids=lambda row: row[0])
def test_where_something_new_goes_has_every_name_that_is_told(row):
    words = re.findall(r"`([^`]+)`", row[1]) or [row[1]]
    files = [PROJECT / word for word in words if "/" in word]
    texts = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    assert files
    for word in words:
        if "/" not in word and word.isidentifier():
            assert any(re.search(rf"\b{word}\b", text) for text in texts), word
