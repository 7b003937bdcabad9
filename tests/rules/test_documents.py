"""What the documentation must say, and that what it points to is there."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import umuxstack

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SOURCE = re.compile(
    r"`((?:umuxstack|tun|apps|benchmarks|tests|core|driver|control|cli|docs|scripts)/[\w./-]*\.(?:py|md|toml))`"
)


def paragraphs_with(document: str, *words: str) -> list[str]:
    text = (ROOT / "docs" / document).read_text()
    return [paragraph for paragraph in text.split("\n\n") if all(word in paragraph for word in words)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = [target for target in LINK.findall(path.read_text()) if "://" not in target]
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path) -> None:
    named = SOURCE.findall(path.read_text())
    assert [name for name in named if not any((ROOT / base / name).exists() for base in ("", "umuxstack"))] == []


@pytest.mark.rule("UM-11.b")
def test_the_routed_link_is_recommended_and_the_reason_given() -> None:
    assert paragraphs_with("operation.md", "recommended", "routed", "neighbour entry")
    assert paragraphs_with("operation.md", "neighbour-cache exhaustion", "RFC 6583", "RFC 8273")


@pytest.mark.rule("UM-31.g")
def test_the_price_of_silence_is_told() -> None:
    assert paragraphs_with("operation.md", "crash", "their own timeout")


def test_an_ssa_is_called_what_it_is() -> None:
    assert paragraphs_with("operation.md", "bearer token", "clear text", "on the path")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_the_documents_compiles_and_uses_names_that_exist(path: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "umuxstack":
                assert hasattr(umuxstack, node.attr), node.attr
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("umuxstack", "tun"):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
