"""A pocket calculator that nothing hostile can hang: no eval, bounded in length, depth and size of numbers."""

from __future__ import annotations

import re
from typing import TypeAlias

Number: TypeAlias = int | float

MAX_LENGTH = 200
MAX_DEPTH = 30
MAX_BITS = 4096

_CANDIDATE = re.compile(r"[\d(.+\-−][\d\s.()+\-−*/×÷%^]{0,400}")
_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*|\.\d+)|(\*\*|//|[-+*/%()]))")
_SPELLINGS = str.maketrans({"×": "*", "÷": "/", "−": "-", "^": "\0"})


class CannotCalculate(Exception):
    """Not arithmetic, or too much of it."""


def find_and_calculate(text: str) -> tuple[str, str] | None:
    """The longest arithmetic expression in `text` with its value as text, or None if there is none to calculate."""
    candidates = sorted((found.group().strip(" .\n\t") for found in _CANDIDATE.finditer(text[:4000])), key=len)
    for candidate in reversed(candidates):
        expression = " ".join(candidate.split())
        try:
            if any(sign in expression.lstrip("-−") for sign in "+-*/%×÷−^"):
                return expression, shown(calculate(expression))
        except CannotCalculate:
            continue
    return None


def calculate(expression: str) -> Number:
    """The value of `expression`: + - * / // % ** and parentheses, as Python reads them; `^` is a power too."""
    if len(expression) > MAX_LENGTH:
        raise CannotCalculate("too long")
    text = expression.translate(_SPELLINGS).replace("\0", "**").rstrip()
    tokens: list[str] = []
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise CannotCalculate("not arithmetic")
        tokens.append(found.group(1) or found.group(2))
        position = found.end()
    parser = _Parser(tokens)
    try:
        value = parser.sum(0)
    except (ArithmeticError, ValueError) as error:
        raise CannotCalculate("no such number") from error
    if parser.peek():
        raise CannotCalculate("not arithmetic")
    return value


def shown(value: Number) -> str:
    """A number as people write it: no `.0`, no noise in the last digits."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    return str(value)


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def sum(self, depth: int) -> Number:
        value = self.product(depth)
        while self.peek() in {"+", "-"}:
            sign = self.take()
            right = self.product(depth)
            value = _bounded(value + right if sign == "+" else value - right)
        return value

    def product(self, depth: int) -> Number:
        value = self.signed(depth)
        while self.peek() in {"*", "/", "//", "%"}:
            sign = self.take()
            right = self.signed(depth)
            if sign == "*":
                value = _bounded(value * right)
            elif sign == "/":
                value = _bounded(value / right)
            elif sign == "//":
                value = _bounded(value // right)
            else:
                value = _bounded(value % right)
        return value

    def signed(self, depth: int) -> Number:
        if depth > MAX_DEPTH:
            raise CannotCalculate("too deep")
        if self.peek() in {"-", "+"}:
            sign = self.take()
            value = self.signed(depth + 1)
            return -value if sign == "-" else value
        base = self.atom(depth)
        if self.peek() == "**":
            self.take()
            return _power(base, self.signed(depth + 1))
        return base

    def atom(self, depth: int) -> Number:
        piece = self.take()
        if piece == "(":
            value = self.sum(depth + 1)
            if self.take() != ")":
                raise CannotCalculate("a parenthesis is open")
            return value
        if not piece or piece[0] not in "0123456789.":
            raise CannotCalculate("not arithmetic")
        return float(piece) if "." in piece else int(piece)


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        if base.bit_length() * exponent > MAX_BITS and abs(base) > 1:
            raise CannotCalculate("too big")
        return _bounded(base**exponent)
    value = float(base) ** float(exponent)
    if isinstance(value, complex):
        raise CannotCalculate("not a real number")
    return _bounded(value)


def _bounded(value: Number) -> Number:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise CannotCalculate("too big")
    if isinstance(value, float) and (value != value or value in {float("inf"), float("-inf")}):  # noqa: PLR0124
        raise CannotCalculate("no such number")
    return value
