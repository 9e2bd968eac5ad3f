"""The pages: what is made of the code is what is committed, both languages hold the same, and links lead somewhere."""

from __future__ import annotations

import ast
import fnmatch
import itertools
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlay import messages_en, messages_ja, texts_en, texts_ja
from overlay.limits import Limits
from overlay.run import Progress
from overlay.settings import OPTIONAL_ARGUMENTS, REQUIRED_ARGUMENTS, CsvFormat, Settings
from tests.conftest import ROOT
from tools.docs import settings, troubleshooting
from tools.docs.__main__ import begin, pages, with_block

BOTH = (
    "README",
    "SECURITY",
    *(f"docs/{name}" for name in ("merge-rules", "deployment", "first-apply", "configuration", "github-actions")),
)
BOTH += tuple(f"docs/{name}" for name in ("operations", "recipes", "troubleshooting", "scaling", "benchmark"))
PAIRS = [(f"{page}.md", f"{page}.en.md") for page in BOTH]
PAGES = sorted({*itertools.chain.from_iterable(PAIRS), "CONTRIBUTING.md", "CHANGELOG.md"})
TEXTS = {"ja": texts_ja.TEXTS, "en": texts_en.TEXTS}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
CELL_END = re.compile(r"(?<!\\)\|")


def page_text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page_text(page))


# --- made pages


MADE = pages()


@pytest.mark.parametrize("path", sorted(MADE), ids=lambda path: str(path.relative_to(ROOT)))
def test_made_page_is_what_the_code_says(path):
    assert path.read_text(encoding="utf-8") == MADE[path], "run `make docs`"


def test_recipes_give_runs_arguments_that_the_job_knows():
    blocks = dict(FENCE.findall(page_text("docs/recipes.en.md")))
    assert set(blocks) == {"json", "python"}
    machine = json.loads(blocks["json"])
    state = machine["States"][machine["StartAt"]]
    assert state["Resource"] == "arn:aws:states:::glue:startJobRun.sync"
    [call] = [node for node in ast.walk(ast.parse(blocks["python"])) if isinstance(node, ast.Call)]
    airflow = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert state["Parameters"]["JobName"] == airflow["job_name"] == "job-customers"
    for arguments in (state["Parameters"]["Arguments"], airflow["script_args"]):
        assert {name.removeprefix("--") for name in arguments} <= {*OPTIONAL_ARGUMENTS}


def test_a_block_is_replaced_and_nothing_else():
    text = f"before\n{begin('a')}\n\nold\n\n<!-- end -->\nafter\n{begin('b')}\n<!-- end -->\n"
    assert with_block(text, "a", ["new"]) == text.replace("old", "new")


def test_a_page_without_the_block_is_refused():
    with pytest.raises(ValueError, match="no block <!-- made by make docs: b -->"):
        with_block(f"{begin('a')}\n<!-- end -->\n", "b", [])


# --- settings


@pytest.mark.parametrize(
    ("name", "path", "field"),
    [(name, path, field) for name in settings.FILES for path, field, _ in settings.fields(name)],
)
@pytest.mark.parametrize("language", ["ja", "en"])
def test_text_of_a_setting_names_all_that_it_takes(name, path, field, language):
    text = field.get(settings.TEXT[language], "")
    assert text, f"{name}: {path} lacks {settings.TEXT[language]}"
    assert (language == "ja") == bool(re.search(r"[ぁ-ん]|[一-龠]|[ァ-ヶ]", text))
    for value in settings.allowed(field):
        assert re.search(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", text, re.ASCII), value
    if field.get("maximum", 999_999_999) < 999_999_999:  # which only bounds the digits
        assert {str(field["minimum"]), str(field["maximum"])} <= set(re.findall(r"\d+", text))


def test_defaults_of_the_schema_are_those_of_the_job():
    fields = {path: field for path, field, _ in settings.fields("configs")}
    assert {path: field["default"] for path, field in fields.items() if path.startswith("csv.")} == {
        f"csv.{name}": value for name, value in vars(CsvFormat()).items()
    }
    for path in ("key", "language", "slack.notify"):
        assert fields[path]["default"] == Settings.__dataclass_fields__[path.rpartition(".")[2]].default


def test_defaults_of_the_schema_are_those_of_terraform():
    of_terraform = dict(re.findall(r"try\((?:entry|settings)\.([\w.]+), \"?(\w+)\"?\)", page_text("data.tf")))
    fields = (field for name in settings.FILES for field in settings.fields(name))
    defaults = {path: field["default"] for path, field, _ in fields if "default" in field and path in of_terraform}
    assert len(defaults) >= 4
    assert {path: of_terraform[path] for path in defaults} == {
        path: value if isinstance(value, str) else json.dumps(value) for path, value in defaults.items()
    }


@pytest.mark.parametrize("page", ["docs/configuration.md", "docs/configuration.en.md"])
def test_every_job_argument_has_a_row(page):
    rows = "\n".join(line.split("|")[1] for line in prose(page).splitlines() if line.startswith("| `--"))
    arguments = re.findall(r"`--(\w+)`", rows)
    assert sorted(arguments) == sorted({*REQUIRED_ARGUMENTS, *OPTIONAL_ARGUMENTS} - {"JOB_NAME"})


# --- troubleshooting


def test_every_way_to_fail_is_raised_by_one_class_and_has_a_row():
    classes = troubleshooting.classes_of_codes()
    assert sorted(classes) == sorted(messages_en.MESSAGES) == sorted(messages_ja.MESSAGES)
    assert {code: names for code, names in classes.items() if len(names) != 1} == {}
    for page in ("docs/troubleshooting.md", "docs/troubleshooting.en.md"):
        rows = re.findall(r"^\| <a id=\"(\w+)\"></a>`\1` \| .+ \| .* \| .+ \|$", page_text(page), re.MULTILINE)
        assert sorted(rows) == sorted(messages_en.MESSAGES)


def test_a_class_is_shown_by_what_its_readers_can_do():
    assert set(troubleshooting.SHOWN_CLASSES) - set(troubleshooting.SHOWN_CLASSES.values()) == {"TransientTableError"}
    assert troubleshooting.SHOWN_CLASSES["TransientTableError"] == "TableError"
    assert troubleshooting.classes_of_codes()["database_unreachable"] == {"TableError"}


@pytest.mark.parametrize(
    ("call", "caller"),
    [
        ("SourceError('code')", "def run() -> None: ..."),
        ("(SourceError if lost else SourceError)('code')", "def run() -> None: ..."),
        ("self._error('code')", "def _error() -> SourceError: ..."),
        ("kind('code')", "def run() -> SourceError | None: ..."),
    ],
)
def test_class_of_an_error_is_read_from_the_source(call, caller):
    (function,) = ast.parse(caller).body
    assert set(troubleshooting.first_classes(ast.parse(call, mode="eval").body, function.returns)) == {"SourceError"}


def test_causes_are_told_in_both_languages_and_of_codes_that_exist():
    assert set(troubleshooting.CAUSES) <= set(messages_en.MESSAGES)
    for texts in troubleshooting.CAUSES.values():
        assert all(texts[language] for language in ("ja", "en"))


def test_every_detail_of_a_message_has_a_japanese_name():
    details = set(re.findall(r"\{(\w+)", " ".join(itertools.chain.from_iterable(messages_ja.MESSAGES.values()))))
    assert set(troubleshooting.DETAILS["ja"]) == details - {"near"}


def test_template_is_shown_without_braces():
    assert troubleshooting.readable("{url}: {value!r} of {count:,}{near}.", "en") == "‹url›: ‹value› of ‹count›."
    assert troubleshooting.readable("{url}", "ja") == "‹場所›"


def test_messages_of_local_are_found():
    rows = list(troubleshooting.local_rows())
    raised = sum(
        len(re.findall(r"raise (?:Runner|Service)Error\(", path.read_text())) for path in ROOT.glob("local/**/*.py")
    )
    assert len(rows) == raised
    assert all(message for message, _ in rows)


# --- the flow


def stages_of_the_job() -> list[str]:
    """The stages in the order in which `run` of glue_job.py enters them, after the one that a run begins with."""
    functions = {
        node.name: node for node in ast.parse(page_text("glue_job.py")).body if isinstance(node, ast.FunctionDef)
    }
    blocks = [node for node in statements(functions["run"].body) if isinstance(node, ast.With)]
    calls = [ast.unparse(item.context_expr) for block in blocks for item in block.items]
    stages = [stage.group(1) for call in calls if (stage := re.fullmatch(r"run\.stage\('(\w+)'\)", call))]
    return [Progress("", Limits()).stage, *stages]


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a block and those inside of them, in the order of the text."""
    for statement in body:
        yield statement
        yield from statements(getattr(statement, "body", []))


@pytest.mark.parametrize(("language", "page"), {"ja": "docs/operations.md", "en": "docs/operations.en.md"}.items())
def test_diagram_shows_the_stages_of_a_run(language, page):
    (diagram,) = (text for kind, text in FENCE.findall(page_text(page)) if kind == "mermaid")
    stages = stages_of_the_job()
    labels = dict(re.findall(r"(\w+)\[\"([^\"<]+)<br>", diagram))
    assert labels == {stage: TEXTS[language][stage] for stage in stages}
    edges = re.findall(r"(\w+)(?:\[\"[^\"]*\"\])?(?: -- \"[^\"]*\")? --> (\w+)", diagram)
    assert [edge for edge in edges if set(edge) <= set(stages)] == list(itertools.pairwise(stages))
    for end in ("success", "failure"):
        assert TEXTS[language][end].split(":")[1].split("(")[0].strip(" {job}") in diagram


def test_schema_of_the_run_report_has_the_stages_of_a_run():
    schema = json.loads(page_text("schemas/run_report.schema.json"))["properties"]
    assert schema["error"]["properties"]["stage"]["enum"] == list(dict.fromkeys(stages_of_the_job()))
    assert schema["stages"]["items"]["properties"]["stage"]["enum"] == list(dict.fromkeys(stages_of_the_job()[1:]))


# --- contributing


# What a dotted name may begin with (a module by its path below overlay/ or its own name, a class), and its text.
SCOPES: list[tuple[set[str], str]] = []
for file in [*ROOT.glob("overlay/**/*.py"), *ROOT.glob("reference/*.py")]:
    source = file.read_text(encoding="utf-8")
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts[1:])
    SCOPES.append(({module, file.stem, *re.findall(r"^class (\w+)", source, re.MULTILINE)}, source))
FOLDERS = ("bench", "local", "overlay", "reference", "schemas", "tests", "tools")
CODE = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*") if path.suffix in {".py", ".json"}]
CODE = [*ROOT.glob("*.tf"), *(path for path in CODE if path != Path(__file__))]
WORDS = set(re.findall(r"[\w-]+", "\n".join(path.read_text(encoding="utf-8") for path in CODE)))


def exists(name: str) -> bool:
    """Whether a name is one of a file, a target of make, a definition in a module or a class, a word of the code."""
    if any((folder / name).exists() or any(folder.glob(name)) for folder in (ROOT, ROOT / "overlay")):
        return True
    if name.startswith("make"):
        targets = name.partition(" CASES")[0].split()[1:]
        return set(targets) <= set(re.findall(r"^([a-z-]+):", page_text("Makefile"), re.MULTILINE))
    if re.fullmatch(r"\w+([./][\w*]+)+", name):
        dotted = name.replace("/", ".")
        scope, _, attribute = dotted.rpartition(".")
        definition = re.compile(rf"^ *(?:def |class )?{re.escape(attribute)}\b", re.MULTILINE)
        modules = (fnmatch.filter(names, dotted) for names, _ in SCOPES)
        parts = (fnmatch.filter(names, scope) and definition.search(text) for names, text in SCOPES)
        return any(itertools.chain(modules, parts))
    return set(re.findall(r"[\w-]+", name)) <= WORDS


def test_contributing_names_what_exists():
    assert [name for name in re.findall(r"`([^`]+)`", page_text("CONTRIBUTING.md")) if not exists(name)] == []


@pytest.mark.parametrize(
    "name", ["overlay/nothing.py", "make nothing", "keys.nothing", "table/nothing", "Secret.nothing", "no_thing_at_all"]
)
def test_a_name_of_nothing_is_noticed(name):
    assert not exists(name)


def test_rooms_in_contributing_are_all_modules_in_the_order_of_their_layers():
    rows = re.findall(r"^\| (`[^|]+`) \|[^|]*\|[^|]+\|$", page_text("CONTRIBUTING.md"), re.MULTILINE)
    rooms = [[name.strip("/").replace("/", ".") for name in re.findall(r"`([^`]+)`", row)] for row in rows]
    files = [path.relative_to(ROOT / "overlay").with_suffix("") for path in ROOT.glob("overlay/**/*.py")]
    modules = {".".join(file.parts) for file in files if file.name != "__init__"}
    patterns = [pattern for row in rooms for name in row for pattern in (name, f"{name}.*", f"{name}_*")]
    assert {module for module in modules if not any(fnmatch.fnmatch(module, pattern) for pattern in patterns)} == set()
    layers = tomllib.loads(page_text("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    levels = {name.removeprefix("overlay."): level for level, line in enumerate(layers) for name in line.split(" | ")}
    heights = [[levels[name] for room in row for name in fnmatch.filter(levels, room)] for row in rooms]
    assert sum(map(len, heights)) == len(levels)
    assert heights == sorted(heights, key=min)


@pytest.mark.parametrize("page", [*PAGES, "docs/reliability.md"])
def test_files_that_a_page_names_exist(page):
    names = re.findall(rf"(?<![\w/])(?:{'|'.join(FOLDERS)})/[\w/.*-]*\.(?:py|json|tf)\b", page_text(page))
    assert [name for name in names if not exists(name)] == []


def test_what_protects_is_where_security_says():
    columns = [line.split(" | ") for line in page_text("SECURITY.md").splitlines() if line.count(" | ") == 3]
    names = re.findall(r"`([^`]+)`", " ".join(places_named for _, _, places_named, _ in columns))
    assert len(names) > 15
    assert [name for name in names if not exists(name)] == []


# --- both languages


def structure(page: str) -> list[str]:
    """Lists headings, rows of tables, links, lists and code of a page in their order, without their wording."""
    lines = []
    for kind, code in FENCE.findall(page_text(page)):
        if kind == "text":  # of the demo, in its language
            continue
        wording = r'"[^"]*"|\[[^\]]*\]' if kind == "mermaid" else " *#.*| ENGLISH=1"
        lines.append(f"{kind}: {re.sub(wording, '', code)}")
    for line in prose(page).splitlines():
        if heading := re.match("#+ ", line):
            lines.append(heading.group())
        elif line.startswith("|"):
            lines.append(f"row of {len(CELL_END.findall(line))}")
        elif item := re.match(r" *(-|\d+\.) ", line):
            lines.append(item.group())
    links = re.findall(r"\]\(([^)]+)\)", prose(page))
    return [*lines, *(re.sub(r"#.*", "#", link.replace(".en.", ".")) for link in links)]


@pytest.mark.parametrize(("japanese", "english"), PAIRS)
def test_both_languages_have_the_same_structure(japanese, english):
    assert structure(japanese) == structure(english)


@pytest.mark.parametrize("readme", PAIRS[0])
def test_every_page_is_in_the_index(readme):
    index = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", prose(readme))}
    pages_of_language = {page for page in PAGES if page in {"CONTRIBUTING.md", "CHANGELOG.md"}}
    pages_of_language |= {pair[PAIRS[0].index(readme)] for pair in PAIRS[1:]} | {"docs/reliability.md", "LICENSE"}
    assert pages_of_language <= index


@pytest.mark.parametrize("readme", PAIRS[0])
def test_settings_in_the_readme_are_those_to_fill_in(readme):
    blocks = [json.loads(code) for kind, code in FENCE.findall(page_text(readme)) if kind == "json"]
    assert json.loads(page_text("configs.json")) in blocks


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
