"""Reward functions of GRPO and RLOO: what they are called with, and what they must return."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from mlintern.tools.scripts.call_rules import library_class, values_of
from mlintern.tools.scripts.scopes import Function
from mlintern.tools.scripts.script_ast import Call, Code
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.tables import Peek, Table, read_table

PASSED = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""What TRL passes to every reward function by name, beside the columns of the data."""

NEVER_PASSED = frozenset({"prompt", "completion"})
SCALARS = frozenset({"float", "int", "sum", "len", "max", "min", "round", "abs", "bool", "mean"})
TEXT_METHODS = frozenset(
    {"strip", "lower", "upper", "split", "startswith", "endswith", "find", "replace", "splitlines", "encode"}
)
SEARCHES = frozenset({"search", "match", "fullmatch", "findall", "finditer", "sub", "split"})


def reward_checks(code: Code, peek: Peek) -> Iterator[Check]:
    """Findings about the rewards of each GRPO or RLOO trainer."""
    for call in code.calls():
        if library_class(code, call) not in ("GRPOTrainer", "RLOOTrainer"):
            continue
        node = call.argument("reward_funcs", 1)
        found = code.follow(node)
        empty = isinstance(found, ast.List | ast.Tuple) and not found.elts
        if ((node is None and not call.opaque) or empty) and "environment_factory" not in call.keywords:
            yield _error("no_reward", f"{call.last} has no reward_funcs.", "Pass at least one function.", call.node)
            continue
        table = read_table(code, call.argument("train_dataset"), peek)
        functions: Sequence[ast.expr | None] = found.elts if isinstance(found, ast.List | ast.Tuple) else [found]
        seen: set[int] = set()
        for item in functions:
            function = code.function(item)
            if function is not None and id(function) not in seen:
                seen.add(id(function))
                yield from _function(code, function, table)
        yield from _removed_columns(code, call, functions)


def _error(rule: str, message: str, fix: str, node: ast.AST) -> Check:
    return Check(rule=rule, severity="error", message=message, fix=fix, line=getattr(node, "lineno", None))


def _named(function: Function) -> str:
    return getattr(function, "name", "the reward")


def _required(function: Function) -> list[str]:
    arguments = function.args
    positional = [item.arg for item in [*arguments.posonlyargs, *arguments.args]]
    positional = positional[: len(positional) - len(arguments.defaults)]
    keyword = [
        item.arg for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None
    ]
    return positional + keyword


def _function(code: Code, function: Function, table: Table) -> Iterator[Check]:
    arguments = function.args
    taken = {item.arg for item in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
    columns = table.columns
    if arguments.kwarg is None:
        refused = [name for name in PASSED if name not in taken]
        if refused:
            yield _error(
                "reward_signature",
                f"{_named(function)} has no **kwargs: TRL passes {', '.join(refused)} and every column by name.",
                "Add **kwargs to its parameters.",
                function,
            )
    for name in _required(function):
        wrong = name in NEVER_PASSED or (columns is not None and name not in {*PASSED, *columns, "environments"})
        if wrong:
            plural = {"prompt": "prompts", "completion": "completions"}.get(name)
            fix = f"Call it {plural}: a list, one a completion." if plural else "Use a column of the data."
            reason = "TRL passes nothing of that name" + ("" if plural else ", and the data has no such column")
            yield _error("reward_signature", f"{_named(function)} needs {name}: {reason}.", fix, function)
    yield from _returns(code, function)
    if table.first is not None and "prompt" in table.first:
        yield from _kind_of_completions(function, conversational=isinstance(table.first["prompt"], list))


def _returns(code: Code, function: Function) -> Iterator[Check]:
    values = (
        [function.body]
        if isinstance(function, ast.Lambda)
        else [node.value for node in _own_nodes(function) if isinstance(node, ast.Return)]
    )
    generates = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in _own_nodes(function))
    if not values and not generates:
        raises = not isinstance(function, ast.Lambda) and isinstance(function.body[-1], ast.Raise)
        if not raises:
            yield _error("reward_value", f"{_named(function)} returns nothing.", _ONE_EACH, function)
        return
    for value in values:
        found = code.follow(value)
        if value is None or found is None or _is_scalar(found) or _is_number(found, function):
            yield _error(
                "reward_value",
                f"{_named(function)} returns one value for all completions.",
                _ONE_EACH,
                value or function,
            )
        elif isinstance(value, ast.List | ast.Tuple) and not any(isinstance(e, ast.Starred) for e in value.elts):
            number = len(value.elts)
            yield _error(
                "reward_value",
                f"{_named(function)} returns a list of {number}, however many completions there are.",
                _ONE_EACH,
                value,
            )


def _is_number(node: ast.expr, function: Function) -> bool:
    """Whether ``node`` is a name of the function that only numbers are ever put into."""
    if not isinstance(node, ast.Name) or isinstance(function, ast.Lambda):
        return False
    stored = [one for one in _own_nodes(function) if isinstance(one, ast.Name) and one.id == node.id]
    stored = [one for one in stored if isinstance(one.ctx, ast.Store)]
    put = [
        one.value
        for one in _own_nodes(function)
        if isinstance(one, ast.Assign) and any(isinstance(t, ast.Name) and t.id == node.id for t in one.targets)
    ]
    grown = [
        one
        for one in _own_nodes(function)
        if isinstance(one, ast.AugAssign) and isinstance(one.target, ast.Name) and one.target.id == node.id
    ]
    return bool(put) and len(put) + len(grown) == len(stored) and all(map(_is_scalar, put))


_ONE_EACH = "Return a list with one number for each of `completions`."


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    """Nodes of a function without those of functions inside it."""
    waiting: list[ast.AST] = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _is_scalar(node: ast.expr) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.UnaryOp(operand=operand):
            return _is_scalar(operand)
        case ast.Compare() | ast.JoinedStr():
            return not isinstance(node, ast.Compare) or len(node.ops) > 0
        case ast.Call(func=ast.Name(id=name)):
            return name in SCALARS
        case ast.IfExp(body=body, orelse=orelse):
            return _is_scalar(body) and _is_scalar(orelse)
    return False


def _removed_columns(code: Code, call: Call, functions: Sequence[ast.expr | None]) -> Iterator[Check]:
    config = code.called(call.argument("args"))
    if config is None or values_of(code, config).get("remove_unused_columns") is not True:
        return
    for item in functions:
        function = code.function(item)
        needed = [name for name in _required(function) if name not in PASSED] if function is not None else []
        if needed:
            yield _error(
                "reward_signature",
                f"remove_unused_columns=True takes the column {needed[0]} away from {_named(function)}.",  # type: ignore[arg-type]
                "Leave remove_unused_columns out: GRPO keeps the columns.",
                config.keywords["remove_unused_columns"],
            )


def _kind_of_completions(function: Function, *, conversational: bool) -> Iterator[Check]:
    """Completions of a conversational prompt are lists of messages, those of a text prompt are texts."""
    for name in _loop_names(function):
        for node in ast.walk(function):
            if conversational and _as_text(node, name):
                yield _error(
                    "completion_kind",
                    f"The prompts are conversations, so a completion is a list of messages; {name} is read as text.",
                    f'Read {name}[0]["content"].',
                    node,
                )
                return
            if not conversational and _as_messages(node, name):
                yield _error(
                    "completion_kind",
                    f"The prompts are texts, so a completion is a text; {name} is used as a list of messages.",
                    f"Read {name} itself.",
                    node,
                )
                return


def _loop_names(function: Function) -> Iterator[str]:
    """Names that run over the completions."""
    for node in ast.walk(function):
        if not isinstance(node, ast.For | ast.comprehension):
            continue
        target, source = node.target, node.iter
        if isinstance(source, ast.Name) and source.id == "completions" and isinstance(target, ast.Name):
            yield target.id
        match source, target:
            case ast.Call(func=ast.Name(id="zip"), args=args), ast.Tuple(elts=elts):
                for argument, item in zip(args, elts, strict=False):
                    over = isinstance(argument, ast.Name) and argument.id == "completions"
                    if over and isinstance(item, ast.Name):
                        yield item.id
            case ast.Call(func=ast.Name(id="enumerate"), args=[ast.Name(id="completions")]), ast.Tuple(
                elts=[_, ast.Name(id=name)]
            ):
                yield name


def _as_text(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=attr), args=args) if attr in SEARCHES:
            return any(isinstance(item, ast.Name) and item.id == name for item in args[1:])
        case ast.Call(func=ast.Attribute(value=ast.Name(id=found), attr=attr)):
            return found == name and attr in TEXT_METHODS
    return False


def _as_messages(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Subscript(
            value=ast.Subscript(value=ast.Name(id=found)), slice=ast.Constant(value="content" | "role")
        ):
            return found == name
    return False
