"""The text form of objects: reading it into a tree, and words into values and back. Knows no names.

    spec  = name [":" pairs] | name "(" [pairs] ")"
    pairs = key "=" value {"," key "=" value}
    value = word | '"' JSON string '"' | "(" [value {"," value}] ")" | name "(" [pairs] ")"

A word becomes what an annotation asks for: int, float (8/255 is one), bool (true, false), None (none), a Literal, a
tuple of whole numbers (1-1-1-1; other tuples stand in parentheses), a str, another object, or a tuple of objects:
(pgd(steps=20),fgsm), where one alone needs no parentheses.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin


class Unreadable(Exception):
    """The text breaks the grammar. The message says where."""


class Mismatch(Exception):
    """A value is not what its annotation asks for."""


class Quoted(NamedTuple):
    """Text between quotes."""

    text: str


class Items(NamedTuple):
    """A tuple in parentheses."""

    values: tuple[Value, ...]


class Word(NamedTuple):
    """A bare word, or a name with its pairs when parentheses follow."""

    text: str
    pairs: dict[str, Value] | None = None


Value = Quoted | Items | Word


def read(text: str) -> Word:
    """The tree of one spec.

    Raises:
        Unreadable: the text breaks the grammar.
    """
    return _Reader(text).spec()


class _Reader:
    """Recursive descent over the tokens of one spec."""

    TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[,=():]|[^\s,=():"]+)')

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        self.at = 0
        place = 0
        while text[place:].strip():
            match = self.TOKEN.match(text, place)
            if match is None:
                raise Unreadable("a quote is not closed")
            self.tokens.append(match.group(1))
            place = match.end()

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def skip(self, token: str) -> bool:
        """Takes the next token if it is that one."""
        found = self.peek() == token
        self.at += found
        return found

    def need(self, token: str) -> None:
        if not self.skip(token):
            found = repr(self.peek()) if self.peek() else "its end"
            raise Unreadable(f"expected {token!r} and found {found}")

    def word(self, what: str) -> str:
        token = self.peek()
        if not token or token in ",=():" or token.startswith('"'):
            raise Unreadable(f"expected {what} and found {token!r}" if token else f"it ends before {what}")
        self.at += 1
        return token

    def spec(self) -> Word:
        name = self.word("a name")
        pairs: dict[str, Value] = {}
        if self.skip(":"):
            pairs = self.pairs()
        elif self.skip("("):
            pairs = self.pairs()
            self.need(")")
        if self.peek():
            raise Unreadable(f"{self.peek()!r} is not expected there")
        return Word(name, pairs)

    def pairs(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        if self.peek() in (")", ""):
            return found
        while True:
            key = self.word("a key")
            self.need("=")
            if key in found:
                raise Unreadable(f"the key {key!r} comes twice")
            found[key] = self.value()
            if not self.skip(","):
                return found

    def value(self) -> Value:
        if self.peek().startswith('"'):
            self.at += 1
            try:
                return Quoted(json.loads(self.tokens[self.at - 1]))
            except json.JSONDecodeError:
                raise Unreadable("a quoted text is not a JSON string") from None
        if self.skip("("):
            items: list[Value] = []
            while self.peek() != ")":
                items.append(self.value())
                if not self.skip(","):
                    break
            self.need(")")
            return Items(tuple(items))
        word = self.word("a value")
        if not self.skip("("):
            return Word(word)
        pairs = self.pairs()
        self.need(")")
        return Word(word, pairs)


def convert(value: Value, annotation: Any, nested: Callable[[Word, Any], Any]) -> Any:
    """What the value is under an annotation; `nested(word, annotation)` makes objects of named classes.

    Raises:
        Mismatch: it is not what the annotation asks for.
    """
    if (members := _members(annotation)) != (annotation,):
        # The narrow members of a union have their chance first; text would take any word.
        for member in sorted(members, key=_width):
            try:
                return convert(value, member, nested)
            except Mismatch:
                continue
        raise Mismatch
    if get_origin(annotation) is Literal:
        return _one_of(value, get_args(annotation), nested)
    if _is_tuple(annotation):
        items = _items(value, annotation)
        return tuple(
            convert(item, member, nested) for item, member in zip(items, _each(annotation, len(items)), strict=True)
        )
    if annotation in _WORDS:
        return _WORDS[annotation](value)
    if not isinstance(value, Word):
        raise Mismatch
    return nested(value, annotation)


def _one_of(value: Value, allowed: tuple[Any, ...], nested: Callable[[Word, Any], Any]) -> Any:
    for member in allowed:
        try:
            if convert(value, type(member), nested) == member:
                return member
        except Mismatch:
            continue
    raise Mismatch


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _width(member: Any) -> int:
    return 0 if member is type(None) else 3 if member is str else 2 if _is_tuple(member) else 1


def _is_tuple(annotation: Any) -> bool:
    return annotation is tuple or get_origin(annotation) is tuple


def _items(value: Value, annotation: Any) -> tuple[Value, ...]:
    """What a value holds under a tuple's annotation. One object may stand for a tuple of one."""
    if isinstance(value, Items):
        return value.values
    if isinstance(value, Word) and not any(member in _WORDS for member in get_args(annotation) or (int,)):
        return (value,)
    return tuple(Word(part) for part in bare(value).split("-"))


def _each(annotation: Any, count: int) -> tuple[Any, ...]:
    """The annotation of each of `count` items of a tuple."""
    members = get_args(annotation) or (int, Ellipsis)
    if len(members) == 2 and members[1] is Ellipsis:
        return (members[0],) * count
    if len(members) != count:
        raise Mismatch
    return members


def bare(value: Value) -> str:
    """The text of a word without parentheses.

    Raises:
        Mismatch: for anything else.
    """
    if not isinstance(value, Word) or value.pairs is not None:
        raise Mismatch
    return value.text


def _none(value: Value) -> None:
    if bare(value).lower() != "none":
        raise Mismatch


def _bool(value: Value) -> bool:
    known = {"true": True, "false": False}
    if (word := bare(value).lower()) not in known:
        raise Mismatch
    return known[word]


def _int(value: Value) -> int:
    if not re.fullmatch(r"[+-]?\d+", word := bare(value)):
        raise Mismatch
    return int(word)


def _float(value: Value) -> float:
    top, slash, bottom = bare(value).partition("/")
    try:
        number = float(top) / (float(bottom) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise Mismatch from None
    if math.isnan(number):
        raise Mismatch
    return number


def _str(value: Value) -> str:
    return value.text if isinstance(value, Quoted) else bare(value)


_WORDS: dict[Any, Callable[[Value], Any]] = {type(None): _none, bool: _bool, int: _int, float: _float, str: _str}


def expectation(annotation: Any) -> str:
    """What an annotation asks for, in words."""
    names = {type(None): "none", bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if annotation in names:
        return names[annotation]
    if (members := _members(annotation)) != (annotation,):
        return " or ".join(map(expectation, members))
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, get_args(annotation)))}"
    if _is_tuple(annotation):
        members = [member for member in get_args(annotation) or (int,) if member is not Ellipsis]
        if any(member in (int, float) for member in members):
            return "numbers such as 1-1-1-1 or (0.5,0.5,0.5)"
        return f"a list in parentheses, each of it {expectation(members[0])}"
    return f"a name of the catalog ({getattr(annotation, '__name__', annotation)})"


def show(value: Value) -> str:
    """A value as it was written."""
    if isinstance(value, Items):
        return f"({','.join(map(show, value.values))})"
    if isinstance(value, Quoted):
        return json.dumps(value.text)
    if value.pairs is None:
        return value.text
    return f"{value.text}({','.join(f'{key}={show(one)}' for key, one in value.pairs.items())})"


def write(value: Any, annotation: Any, nested: Callable[[Any], str]) -> str:
    """The canonical text of a value; `nested(value)` writes objects. `convert` reads it back."""
    members = _members(annotation)
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, Integral):
        # 1 given for a float is 1.0, as it will be when it is read back.
        return repr(float(value)) if float in members and int not in members else repr(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, str):
        return value if _is_plain(value) else json.dumps(value)
    if isinstance(value, tuple):
        inner = next((member for member in members if _is_tuple(member)), tuple)
        each = _each(inner, len(value)) if value else ()
        texts = [write(item, member, nested) for item, member in zip(value, each, strict=True)]
        return "-".join(texts) if len(texts) > 1 and all(map(str.isdigit, texts)) else f"({','.join(texts)})"
    return nested(value)


def _is_plain(text: str) -> bool:
    """Whether text can stand without quotes and cannot be taken for anything but text."""
    words = ("none", "true", "false", "inf", "infinity", "nan")
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./+-]*", text) is not None and text.lower() not in words
