from __future__ import annotations

import ast
import builtins
from pathlib import Path

import pytest

import ripu
from ripu.io.errors import ConfigError, exit_on_error, line_of, print_error

_NOT_ERRORS = {"Terminated", "MalformedError", "NonFiniteLogitsError", "_BehindDeclarations"}
"""Control flow, and an error that the callers translate: none of them reaches a user."""


def bases_of_classes() -> dict[str, list[str]]:
    classes = [
        node
        for path in Path(ripu.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    return {node.name: [ast.unparse(base).rpartition(".")[2] for base in node.bases] for node in classes}


def test_every_error_class_has_one_base() -> None:
    bases = bases_of_classes()

    def ancestors(name: str) -> set[str]:
        return {name}.union(*(ancestors(base) for base in bases.get(name, []) if base != name))

    def is_exception(name: str) -> bool:
        kind = getattr(builtins, name, None)
        return isinstance(kind, type) and issubclass(kind, BaseException)

    errors = {name for name in bases if any(map(is_exception, ancestors(name)))}
    assert len(errors) > 20
    assert {name for name in errors if "RipuError" not in ancestors(name)} == _NOT_ERRORS


def test_an_error_is_printed_in_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(ConfigError("seed=x is not a number; give one"))
    assert capsys.readouterr().err == "\nerror: seed=x is not a number; give one\n"
    with pytest.raises(KeyError):
        print_error(KeyError("a fault of the program"))
    assert line_of(ValueError("raised by a library")) is None


def test_a_command_ends_with_the_line_of_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, exit_on_error():
        raise ConfigError("seed=x is not a number; give one")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "\nerror: seed=x is not a number; give one\n"
    for other in (KeyError("a fault of the program"), KeyboardInterrupt()):
        with pytest.raises(type(other)) as passed, exit_on_error():
            raise other
        assert passed.value is other
    assert capsys.readouterr().err == ""
