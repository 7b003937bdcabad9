"""The shape of the code, checked: imports, purity of the core, exports, sizes, and where 2^32 is known."""

import ast
import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from importlinter.application.use_cases import lint_imports
from importlinter.configuration import configure

import umuxstack

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("umuxstack", "tun")
CORE: Final = ROOT / "umuxstack/core"

MAX_LINES: Final = 520  # about 500
LONGER_FILES: Final[dict[str, str]] = {}
MAX_FUNCTION: Final = 60
LONGER_FUNCTIONS: Final = {
    "umuxstack/core/tcp/receive.py _text": "every check of a segment's text, in order",
    "umuxstack/cli/up.py add": "a list of options, with their help",
    "umuxstack/core/network/fragments.py add": "RFC 8200 4.5 in its order",
    "umuxstack/core/tcp/connection.py _segment": "RFC 9293 3.10.7.4 in its order",
    "umuxstack/core/tcp/recovery.py _on_ack": "one acknowledgment, check by check",
    "umuxstack/core/tcp/send.py _send_new": "one loop; each part would need all of its state",
    "umuxstack/host.py open_host": "the public way in: its arguments and what they mean are half of it",
    "umuxstack/core/tcp/tcb.py __init__": "a declaration of every variable, with its unit",
}

CORE_MAY_IMPORT: Final = {
    *("attrs", "bisect", "collections", "enum", "hashlib", "heapq", "struct", "typing"),
    *("contextlib", "mypy_extensions"),
    *("inspect", "types"),  # the registry of congestion controls checks what it is given
    "ipaddress",  # wire/address.py: text, at the edges
}
CORE_MAY_NOT_NAME: Final = {"open", "print", "input", "exec", "eval", "__import__", "Any"}
WORD: Final = {0xFFFFFFFF, 1 << 32}
KNOWS_WORD: Final = {
    "umuxstack/core/tcp/seq.py": "the one place that wraps and unwraps",
    "umuxstack/core/tcp/session.py": "an upper bound for the fields of an idle session's record, nothing wraps",
    "umuxstack/core/network/offload.py": "cuts finished segments as the kernel would; knows no TCP state",
}
UNWRAPS: Final = {
    "umuxstack/core/tcp/opening.py": "a SYN and its answer arrive",
    "umuxstack/core/tcp/icmp_errors.py": "the sequence number of a quoted segment",
    "umuxstack/core/tcp/connection.py": "the door of a session",
    "umuxstack/core/tcp/quiet.py": "the door of a session that is over",
}


def sources(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.py"))


ALL: Final = [path for package in PACKAGES for path in sources(ROOT / package)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name_of(path))


def findings(paths: list[Path], *kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """("file:line", node) for every node of these kinds."""
    for path in paths:
        for node in ast.walk(tree(path)):
            if isinstance(node, kinds):
                yield f"{name_of(path)}:{getattr(node, 'lineno', 0)}", node


def test_imports_point_inward(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None), capsys.readouterr().out


def test_the_wheel_holds_the_two_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(PACKAGES)
    assert project["tool"]["importlinter"]["root_packages"] == list(PACKAGES)
    # For whoever checks a program that uses them; without it the types of a TunDevice were Any.
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").exists()] == []


def test_the_public_face_holds_what_it_names() -> None:
    assert len(set(umuxstack.__all__)) == len(umuxstack.__all__)
    for name in umuxstack.__all__:
        assert getattr(umuxstack, name) is not None


def test_every_module_can_be_imported_alone() -> None:
    for path in ALL:
        if path.name != "__main__.py":
            importlib.import_module(name_of(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__"))


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(tree(path))
    assert docstring or not text.strip(), "a module with content needs a docstring"
    assert len((docstring or "").splitlines()) <= 12


def test_files_stay_readable() -> None:
    long = {name_of(path) for path in ALL if len(path.read_text().splitlines()) > MAX_LINES}
    assert long == set(LONGER_FILES), "split it, or say in LONGER_FILES why not; take it from there when it shrank"


def test_functions_stay_readable() -> None:
    long = {
        f"{place.rpartition(':')[0]} {node.name}"
        for place, node in findings(ALL, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION
    }
    assert long == set(LONGER_FUNCTIONS), "split it, or say in LONGER_FUNCTIONS why not"


def test_nothing_is_called_utils() -> None:
    assert [name_of(path) for path in ALL if path.stem in ("utils", "util", "helpers", "misc")] == []


def test_the_core_imports_itself_and_pure_modules_only() -> None:
    """What the import contract forbids by name is shut out here by what is allowed; a clock needs an import."""
    imported: dict[str, str] = {}
    modules = [path for path in sources(CORE) if path.parent.name != "core" or path.stem != "__init__"]
    assert len(modules) == len(sources(CORE)) - 1  # core/__init__.py chooses between sources and compiled modules
    for place, node in findings(modules, ast.Import, ast.ImportFrom):
        assert isinstance(node, ast.Import | ast.ImportFrom)
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
        imported |= {name: place for name in names if not name.startswith("umuxstack.core.")}
    assert "struct" in imported
    assert {name: place for name, place in imported.items() if name.partition(".")[0] not in CORE_MAY_IMPORT} == {}


def test_the_core_does_no_io_by_builtins_and_has_no_explicit_any() -> None:
    used = [(place, node.id) for place, node in findings(sources(CORE), ast.Name) if isinstance(node, ast.Name)]
    assert [(place, name) for place, name in used if name in CORE_MAY_NOT_NAME] == []


def test_the_core_never_waits_and_keeps_nothing_global() -> None:
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Global)
    assert [place for place, _ in findings(sources(CORE), *kinds)] == []


@pytest.mark.parametrize("path", sources(CORE), ids=name_of)
def test_the_core_has_no_mutable_state_in_modules(path: Path) -> None:
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    for node in tree(path).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            final = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).startswith("Final")
            dunder = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            assert final or dunder or not isinstance(node.value, mutable), ast.unparse(node)
            called = ast.unparse(node.value.func) if isinstance(node.value, ast.Call) else ""
            assert called not in ("list", "dict", "set", "deque", "defaultdict", "Counter", "bytearray"), called


def is_word(node: ast.AST) -> bool:
    """Whether `node` is 2^32 or 2^32-1, however it is written."""
    match node:
        case ast.Constant(value=int(value)):
            return value in WORD
        case ast.BinOp(left=ast.Constant(value=1), op=ast.LShift(), right=ast.Constant(value=32)):
            return True
        case ast.BinOp(left=ast.Constant(value=2), op=ast.Pow(), right=ast.Constant(value=32)):
            return True
    return False


def test_only_the_seam_knows_that_sequence_numbers_wrap() -> None:
    """Inside, sequence numbers are plain growing integers: `<` is right on them because nobody cuts them."""
    places = {
        place.rpartition(":")[0]
        for place, node in findings(sources(CORE), ast.Constant, ast.BinOp)
        if is_word(node) and not place.startswith("umuxstack/core/wire/")
    }
    assert places == set(KNOWS_WORD)


def test_wire_values_are_unwrapped_at_the_door_alone() -> None:
    places = {
        place.rpartition(":")[0]
        for place, node in findings(sources(CORE), ast.ImportFrom)
        if isinstance(node, ast.ImportFrom) and any(alias.name == "unwrap" for alias in node.names)
    }
    assert places == set(UNWRAPS)


def masks(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Name) and part.id == "MASK" for part in ast.walk(node))


def test_a_masked_number_is_never_stored_as_a_sequence_variable() -> None:
    for place, node in findings(sources(CORE), ast.Assign, ast.AnnAssign, ast.AugAssign):
        assert isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        stored = [target.attr for target in targets if isinstance(target, ast.Attribute)]
        if any(name.startswith(("snd_", "rcv_")) for name in stored):
            assert node.value is None or not masks(node.value), place


def test_a_masked_number_is_ordered_only_by_the_sign_of_a_difference() -> None:
    """Timestamps stay 32 bits wide (RFC 7323 5.2): `(a - b) & MASK < 0x80000000`, and no other order."""
    for place, node in findings(sources(CORE), ast.Compare):
        assert isinstance(node, ast.Compare)
        if any(isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in node.ops) and masks(node):
            masked, limit = node.left, node.comparators[-1]
            assert isinstance(limit, ast.Constant), place
            assert limit.value == 0x80000000, place
            assert isinstance(masked, ast.BinOp), place
            assert isinstance(masked.left, ast.BinOp), place
            assert isinstance(masked.left.op, ast.Sub), place


def declared(node: ast.ClassDef) -> set[str]:
    """The attributes of its instances that a class gives a type."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.AnnAssign) and "ClassVar" not in ast.unparse(part.annotation):
            target = part.target
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                found.add(target.attr)
            elif isinstance(target, ast.Name) and part in node.body:
                found.add(target.id)
    return found


def test_no_class_of_the_core_declares_again_what_a_base_declares() -> None:
    """Compiled, it would be two attributes in one place: the collector counts what it holds twice, and never frees it.

    So it was with `Stack._listeners`: a stack that nobody held any more, and that was part of a cycle, was kept.
    """
    classes = {
        node.name: node for path in sources(CORE) for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)
    }

    def above(node: ast.ClassDef) -> set[str]:
        bases = [classes[name] for name in map(ast.unparse, node.bases) if name in classes]
        return set().union(*(declared(base) | above(base) for base in bases))

    assert "_listeners" in above(classes["Stack"])
    assert {name: again for name, node in classes.items() if (again := declared(node) & above(node))} == {}


def patches_the_core(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions that hand a class of the core to `monkeypatch.setattr`."""
    ours = {
        alias.asname or alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("umuxstack.core.")
        for alias in node.names
        if alias.name[:1].isupper() and not alias.name.isupper()
    }
    for function in module.body:
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and node.args]
            if any(ast.unparse(c.func) == "monkeypatch.setattr" and ast.unparse(c.args[0]) in ours for c in calls):
                yield function


def test_where_the_core_has_values_of_attrs_it_has_nothing_else() -> None:
    """Such a module is not compiled. Once another class stood in one, with a compiled base: no stack could be made."""
    found = []
    for path in sources(CORE):
        classes = [node for node in tree(path).body if isinstance(node, ast.ClassDef)]
        values = [node for node in classes if any("attrs." in ast.unparse(mark) for mark in node.decorator_list)]
        if values:
            enums = [node for node in classes if any("Enum" in ast.unparse(base) for base in node.bases)]
            found += [f"{name_of(path)} {node.name}" for node in classes if node not in values + enums]
    assert found == []


def test_tests_that_patch_a_class_of_the_core_are_marked_plain() -> None:
    """Compiled code does not call what is put there: `make test-fast` alone would notice, or nobody would."""
    found = [
        (name_of(path), function)
        for part in ("cli", "control", "core", "conformance", "driver", "sim")
        for path in sources(ROOT / "tests" / part)
        for function in patches_the_core(tree(path))
    ]
    assert found, "the search would find nothing"
    unmarked = [
        f"{name} {function.name}"
        for name, function in found
        if all(ast.unparse(mark) != "pytest.mark.plain" for mark in function.decorator_list)
    ]
    assert unmarked == []
