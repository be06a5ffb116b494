"""Small changes to a module, each of which a test should notice."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Mutant", "mutants"]

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_TEXT = ("logger.", "logging.")  # what is said to people; so are the arguments of what is raised
_CHECKS = {"validate"}  # functions for tests alone


@dataclass(frozen=True)
class Mutant:
    """One change of a tree.

    Attributes:
        line: of the source.
        lines: of the statement that is changed, without those inside it: a test that runs none of them does
            not notice.
        where: the function or class around it.
        text: what is changed into what.
        apply: change the tree, for good.
    """

    line: int
    lines: range
    where: str
    text: str
    apply: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def mutants(tree: ast.Module) -> Iterator[Mutant]:
    """All changes of a module; only one of them is to be applied to a tree."""
    yield from _inside(tree, "module", range(0))


def _inside(node: ast.AST, where: str, lines: range) -> Iterator[Mutant]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") and not isinstance(node, ast.Module):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _is_text(child):
                continue
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                if child.name not in _CHECKS:
                    inner = child.name if where == "module" else f"{where}.{child.name}"
                    yield from _inside(child, inner, _lines(child))
                continue
            own = _lines(child) if isinstance(child, ast.stmt) else lines
            for other in _others(child, name):
                yield _mutant(node, name, index, child, other, where, own)
            if not isinstance(child, ast.Raise):
                yield from _inside(child, where, own)


def _lines(statement: ast.stmt) -> range:
    """Those of a statement up to the first one inside it."""
    inside = [
        each.lineno for each in ast.walk(statement) if isinstance(each, ast.stmt) and each is not statement
    ]
    last = max(statement.lineno, min(inside) - 1) if inside else statement.end_lineno or statement.lineno
    return range(statement.lineno, last + 1)


def _is_text(node: ast.AST) -> bool:
    """Docstrings, logging, assertions, imports, type aliases under ``if TYPE_CHECKING``."""
    if isinstance(node, ast.Assert | ast.Import | ast.ImportFrom | ast.JoinedStr):
        return True
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    if not isinstance(node, ast.Expr):
        return False
    return isinstance(node.value, ast.Constant) or ast.unparse(node.value).startswith(_TEXT)


def _mutant(
    parent: ast.AST, name: str, index: int | None, old: ast.AST, new: ast.AST, where: str, lines: range
) -> Mutant:
    def apply() -> None:
        fixed = ast.fix_missing_locations(ast.copy_location(new, old))
        if index is None:
            setattr(parent, name, fixed)
        else:
            getattr(parent, name)[index] = fixed

    before, after = (_short(ast.unparse(node)) for node in (old, new))
    return Mutant(getattr(old, "lineno", 0), lines, where, f"{before}  ->  {after}", apply)


def _short(text: str) -> str:
    line, *more = text.splitlines()
    return line + (" ..." if more else "")


def _others(node: ast.AST, name: str) -> Iterator[ast.AST]:
    """What a node may be exchanged for; ``name`` is its field in the node above it."""
    if name == "test":
        yield ast.UnaryOp(ast.Not(), node)
    elif name == "ifs":
        yield from (ast.Constant(True), ast.UnaryOp(ast.Not(), node))
    match node:
        case ast.Compare(ops=[op]):
            if not (name == "test" and isinstance(op, ast.Eq | ast.Is | ast.In)):
                yield _with(node, ops=[_COMPARISONS[type(op)]()])
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                yield _with(node, ops=[*ops[:at], _COMPARISONS[type(op)](), *ops[at + 1 :]])
        case ast.BoolOp(op=op):
            yield _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _OPERATORS:
            yield _with(node, op=_OPERATORS[type(op)]())
        case ast.UnaryOp(op=ast.Not()) if name != "test":
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield ast.Constant(node.value + 1)
        case ast.Call(func=ast.Name(id=called)) if called in _CALLS:
            yield _with(node, func=ast.Name(_CALLS[called], ast.Load()))
        case ast.Call(func=ast.Name(id="sorted"), args=[argument, *_]):
            yield ast.Call(ast.Name("list", ast.Load()), [argument], [])
        case ast.Return(value=ast.expr() as value) if not (
            isinstance(value, ast.Constant) and not value.value
        ):
            yield ast.Return(ast.Constant(None))
        case ast.Break() | ast.Continue():
            yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()
    if isinstance(node, ast.Return) and node.value is None or _is_effect(node):
        yield ast.Pass()


def _is_effect(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign):
        return not any(isinstance(target, ast.Name | ast.Tuple) for target in node.targets)
    return isinstance(node, ast.Expr | ast.AugAssign | ast.Delete | ast.Raise)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed
