"""The pages: what is made of the code is what is committed, both languages hold the same, and links lead somewhere."""

from __future__ import annotations

import ast
import itertools
import json
import re

import pytest

import glue_job
from docs import settings, troubleshooting
from docs.__main__ import begin, pages, put
from tests.conftest import ROOT

PAIRS = [("README.md", "README.en.md"), ("docs/runbook.md", "docs/runbook.en.md")]
PAIRS += [("docs/troubleshooting.md", "docs/troubleshooting.en.md")]
PAGES = sorted({*itertools.chain.from_iterable(PAIRS), "CONTRIBUTING.md", "CHANGELOG.md", "docs/scaling.md"})
READMES = {"ja": "README.md", "en": "README.en.md"}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
CELL_END = re.compile(r"(?<!\\)\|")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", read(page))


# --- made pages


MADE = pages()


@pytest.mark.parametrize("path", sorted(MADE), ids=lambda path: str(path.relative_to(ROOT)))
def test_made_page_is_what_the_code_says(path):
    assert path.read_text(encoding="utf-8") == MADE[path], "run `make docs`"


def test_a_block_is_replaced_and_nothing_else():
    text = f"before\n{begin('a')}\n\nold\n\n<!-- end -->\nafter\n{begin('b')}\n<!-- end -->\n"
    assert put(text, "a", ["new"]) == text.replace("old", "new")


def test_a_page_without_the_block_is_refused():
    with pytest.raises(ValueError, match="no block <!-- made by make docs: b -->"):
        put(f"{begin('a')}\n<!-- end -->\n", "b", [])


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
    form = glue_job.CsvFormat()
    assert {path: field["default"] for path, field in fields.items() if path.startswith("csv.")} == {
        f"csv.{name}": value for name, value in vars(form).items()
    }
    for name in ("key", "language"):
        assert fields[name]["default"] == glue_job.Settings.__dataclass_fields__[name].default


def test_defaults_of_the_schema_are_those_of_terraform():
    found = dict(re.findall(r"try\((?:entry|settings)\.([\w.]+), \"?(\w+)\"?\)", read("data.tf")))
    fields = (each for name in settings.FILES for each in settings.fields(name))
    defaults = {path: field["default"] for path, field, _ in fields if "default" in field and path in found}
    assert len(defaults) >= 4
    assert {path: found[path] for path in defaults} == {
        path: value if isinstance(value, str) else json.dumps(value) for path, value in defaults.items()
    }


@pytest.mark.parametrize("page", READMES.values())
def test_every_job_argument_has_a_row(page):
    rows = "\n".join(line.split("|")[1] for line in prose(page).splitlines() if line.startswith("| `--"))
    shown = re.findall(r"`--(\w+)`", rows)
    assert sorted(shown) == sorted({*glue_job.REQUIRED_ARGUMENTS, *glue_job.OPTIONAL_ARGUMENTS} - {"JOB_NAME"})


# --- troubleshooting


def test_every_way_to_fail_is_raised_and_has_a_row():
    assert set(troubleshooting.classes_of_codes()) == set(glue_job.MESSAGES)
    assert {name for names in troubleshooting.classes_of_codes().values() for name in names} <= set(
        glue_job.ERROR_CLASSES
    )
    for page in ("docs/troubleshooting.md", "docs/troubleshooting.en.md"):
        assert sorted(
            re.findall(r"^\| <a id=\"(\w+)\"></a>`\1` \| .+ \| .* \| .+ \|$", read(page), re.MULTILINE)
        ) == sorted(glue_job.MESSAGES)


def test_causes_are_told_in_both_languages_and_of_codes_that_exist():
    assert set(troubleshooting.CAUSES) <= set(glue_job.MESSAGES)
    for texts in troubleshooting.CAUSES.values():
        assert all(texts[language] for language in ("ja", "en"))


def test_template_is_shown_without_braces():
    assert troubleshooting.readable("{place}: {value!r} of {count:,}{near}.", "en") == "‹place›: ‹value› of ‹count›."
    assert troubleshooting.readable("{place}", "ja") == "‹場所›"


def test_messages_of_local_are_found():
    rows = list(troubleshooting.local_rows())
    raised = sum(
        len(re.findall(r"raise (?:Runner|Service)Error\(", path.read_text())) for path in ROOT.glob("local/*.py")
    )
    assert len(rows) == raised
    assert all(message for message, _ in rows)


# --- the flow


def stages_of_the_job() -> list[str]:
    """The stages in the order in which run() and what it calls enter them."""
    functions = {node.name: node for node in ast.parse(read("glue_job.py")).body if isinstance(node, ast.FunctionDef)}

    def entered(node: ast.AST):
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Call(func=ast.Name(id="progress"), args=[ast.Constant(value=stage)]):
                    yield stage
                case ast.Call(func=ast.Name(id="transfer")):
                    yield from entered(functions["transfer"])
                case _:
                    yield from entered(child)

    return [glue_job.Progress(None, "").stage, *entered(functions["run"])]


@pytest.mark.parametrize(("language", "page"), READMES.items())
def test_diagram_shows_the_stages_of_a_run(language, page):
    (diagram,) = (text for kind, text in FENCE.findall(read(page)) if kind == "mermaid")
    stages = stages_of_the_job()
    labels = dict(re.findall(r"(\w+)\[\"([^\"<]+)<br>", diagram))
    assert labels == {stage: glue_job.TEXTS[language][stage] for stage in stages}
    edges = re.findall(r"(\w+)(?:\[\"[^\"]*\"\])?(?: -- \"[^\"]*\")? --> (\w+)", diagram)
    assert [edge for edge in edges if set(edge) <= set(stages)] == list(itertools.pairwise(stages))
    for known in ("success", "failure"):
        assert glue_job.TEXTS[language][known].split(":")[1].split("(")[0].strip(" {job}") in diagram


# --- contributing


def test_contributing_names_what_exists():
    sources = [*ROOT.glob("*.py"), *ROOT.glob("*.tf"), *ROOT.glob("*/*.py"), *ROOT.glob("*/*.json"), ROOT / "Makefile"]
    known = set(re.findall(r"[\w-]+", "\n".join(path.read_text(encoding="utf-8") for path in sources)))
    for name in re.findall(r"`([^`]+)`", read("CONTRIBUTING.md")):
        words = set(re.findall(r"[\w-]+", name.partition(" CASES")[0]))
        assert (ROOT / name).exists() or words <= known, name


# --- both languages


def structure(page: str) -> list[str]:
    """Headings, rows of tables, links, lists and code of a page in their order, without what is said."""
    found = []
    for kind, code in FENCE.findall(read(page)):
        said = r'"[^"]*"|\[[^\]]*\]' if kind == "mermaid" else " *#.*"
        found.append(f"{kind}: {re.sub(said, '', code)}")
    for line in prose(page).splitlines():
        if heading := re.match("#+ ", line):
            found.append(heading.group())
        elif line.startswith("|"):
            found.append(f"row of {len(CELL_END.findall(line))}")
        elif item := re.match(r" *(-|\d+\.) ", line):
            found.append(item.group())
    links = re.findall(r"\]\(([^)]+)\)", prose(page))
    return [*found, *(re.sub(r"#.*", "#", link.replace(".en.", ".")) for link in links)]


@pytest.mark.parametrize(("japanese", "english"), PAIRS)
def test_both_languages_have_the_same_structure(japanese, english):
    assert structure(japanese) == structure(english)


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
