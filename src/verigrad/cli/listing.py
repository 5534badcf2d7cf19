"""`verigrad list`: what the catalog holds, read from the sources without importing them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from verigrad import catalog
from verigrad.catalog import Entry
from verigrad.core.errors import BadInput

# The columns of an attack, the words in them, and what stands where that is up to the attacks inside.
FACTS = ("norms", "asks for", "kind")
OF_PARTS = "as inside"


class Setting(NamedTuple):
    """One parameter of an entry, with its default as the source writes it; None where it must be given."""

    name: str
    default: str | None


def listing(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="models, threats, attacks, changes, objectives, algorithms, schedules or certificates; all by default."
        ),
    ] = None,
) -> None:
    """List what a spec can name, with parameters."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for one in catalog.KINDS if kind is None else _kinds(kind):
        facts = FACTS if one == "attack" else ()
        table = Table(title=f"{one}s", title_justify="left", title_style="bold", box=None, show_header=bool(facts))
        for column in ("name", *facts):
            table.add_column(column, no_wrap=True)
        table.add_column("what it is, where it comes from, its parameters" if facts else "")
        for entry in catalog.entries(one):
            source = f" ({entry.paper})" if entry.paper else ""
            settings = ", ".join(map(_written, parameters(entry)))
            said = Text(f"{entry.summary}{source}\n").append(settings or "no parameters", "dim")
            table.add_row(entry.name, *(_facts(entry) if facts else ()), said)
        if table.row_count:
            console.print(table)


def _facts(entry: Entry) -> tuple[str, str, str]:
    """An attack's norms, what it asks the model for, and its form."""
    norms = " ".join(catalog.NORMS[norm] for norm in entry.norms)
    return norms or OF_PARTS, "\n".join(entry.knowledge) or OF_PARTS, entry.form


def _kinds(text: str) -> tuple[str, ...]:
    """What is shown under a name: with the objectives the algorithms too, as the other ways of training."""
    known = {f"{kind}s": kind for kind in catalog.KINDS}
    wanted = text.lower().removesuffix("s") + "s"
    if wanted not in known:
        raise BadInput(f"verigrad list knows {', '.join(known)}. Got {text!r}.")
    return ("objective", "algorithm") if wanted == "objectives" else (known[wanted],)


def _written(setting: Setting) -> str:
    return setting.name if setting.default is None else f"{setting.name}={setting.default}"


def parameters(entry: Entry) -> list[Setting]:
    """The fields of the dataclass behind an entry, or the arguments of its `__init__`, from the source."""
    module, _, name = entry.target.partition(":")
    root = Path(__file__).parent.parent
    source = root.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text(encoding="utf-8")
    body = ast.parse(source).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    named = {ast.unparse(node.targets[0]): ast.unparse(node.value) for node in body if isinstance(node, ast.Assign)}
    settings = _settings(classes[name], classes)
    return [Setting(one.name, named.get(one.default or "", one.default)) for one in settings]


def _settings(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[Setting]:
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return _arguments(part.args)
    bases = [classes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
    inherited = [setting for base in bases for setting in _settings(base, classes)]
    own = [
        Setting(part.target.id, _default(part.value))
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and not _of_class(part.annotation)
    ]
    return inherited + own


def _arguments(arguments: ast.arguments) -> list[Setting]:
    plain = arguments.args[1:]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(plain, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return [Setting(argument.arg, _default(default)) for argument, default in pairs]


def _of_class(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).startswith("ClassVar")


def _default(node: ast.expr | None) -> str | None:
    if node is None:
        return None
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "field":
        made = {keyword.arg: keyword.value for keyword in node.keywords}
        node = made.get("default", made.get("default_factory"))
        return None if node is None else _default(node)
    node = node.body if isinstance(node, ast.Lambda) else node
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
