"""JSON that fits a schema, filled with what the user said: a tool's arguments, or a whole answer. Pure.

The schema comes with the request, so its depth and size are bounded here; `pattern` and the rarer keywords are not
looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_TEXT = 4000
_MAX_STRING = 80
_MAX_ITEMS = 100
_DEEP = 6
"""From this depth on, what may be left out is left out: a schema may contain itself."""
_DEEPEST = 30
_MAX_VALUES = 2000

_QUOTED = re.compile(r"\"([^\"\n]{1,200})\"|“([^”\n]{1,200})”|«([^»\n]{1,200})»|(?<!\w)'([^'\n]{1,200})'(?!\w)")
_WORD = re.compile(r"[^\W\d_][\w-]*")
_LISTED = re.compile(r"\s*(?:[,.:;!?]|and\b|or\b|$)")
_NUMBER = re.compile(r"(?<![\w.-])-?\d{1,15}(?:\.\d{1,15})?(?!\w)")
_NAME = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])")

_FORMATS = {
    "date": (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "2025-01-31"),
    "time": (re.compile(r"\b\d\d:\d\d:\d\dZ"), "12:00:00Z"),
    "date-time": (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "2025-01-31T12:00:00Z"),
    "email": (re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,64}\.[\w-]{2,64}\b"), "user@example.com"),
    "uri": (re.compile(r"https?://[^\s\"'<>]{1,500}"), "https://example.com/"),
    "uuid": (re.compile(r"\b[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}\b"), "00000000-0000-4000-8000-000000000000"),
}

_SAYING_NOTHING = (
    "the and for what with from this that you your are can get set how who whom when where which why will would could "
    "should has have had was were not any all one its into about them then there does did let say please tell give use "
    "using tool tools function functions call user given name value values return returns hello thanks also but"
)
"""Words that say nothing about what is talked of."""

_OPENING = (
    "find show look search check compare book add send convert translate calculate compute play create make remind "
    "list fetch open read write put turn ask answer yes no ok okay hi hey"
)
"""Words that have a capital only because they begin a sentence."""

_STOP = frozenset(_SAYING_NOTHING.split())
_NO_NAMES = _STOP.union(_OPENING.split())


def words_of(text: str) -> frozenset[str]:
    """The telling words of a text or a name (`getCityWeather`, `city_weather`), in lower case."""
    found = (word.group().lower() for word in _NAME.finditer(text[:_MAX_TEXT]))
    return frozenset(word for word in found if len(word) >= 3 and word not in _STOP)


class Material:
    """What the user said, as words and numbers to be taken one by one.

    `texts` come with the most telling first. `asides` may choose between given values, but have none to take.
    `dull` are words that name no thing here, such as those of the tool. `start` leaves so many words out (they come
    round again), so that a second call differs from the first.
    """

    def __init__(
        self,
        texts: Sequence[str],
        asides: Sequence[str] = (),
        *,
        dull: frozenset[str] = frozenset(),
        start: int = 0,
    ) -> None:
        cut = [text[:_MAX_TEXT] for text in texts]
        self.text = "\n".join(cut)
        self._lower = "\n".join([*cut, *(text[:_MAX_TEXT] for text in asides)]).lower()
        words = [word for text in cut for word in (_quoted(text) or _capitalised(text, dull))]
        self._words = words[start % len(words) :] if words else []
        self._last = ""
        numbers = [found.group() for text in cut for found in _NUMBER.finditer(text)]
        self._numbers = numbers[min(start, len(numbers) - 1) :] if numbers else []

    @property
    def has_word(self) -> bool:
        return bool(self._words)

    @property
    def has_number(self) -> bool:
        return bool(self._numbers)

    def mentions(self, word: str) -> bool:
        """Whether the text holds this word or phrase, in any case."""
        if not (low := word.lower().strip()):
            return False
        return re.search(rf"(?<!\w){re.escape(low)}(?!\w)", self._lower) is not None

    def word(self) -> str:
        """Take the next word; the last one again when all are taken, the whole text if there was none."""
        if self._words:
            self._last = self._words.pop(0)
        return self._last or " ".join(self.text.split())[:_MAX_STRING].strip() or "simulated"

    def number(self) -> float | int:
        """Take the next number; 1 when all are taken."""
        if not self._numbers:
            return 1
        text = self._numbers.pop(0)
        return float(text) if "." in text else int(text)


def filled(schema: Any, material: Material, *, everything: bool) -> Any:
    """A value that fits `schema`. `everything`: with all properties; else optional ones only if the user named them."""
    return _Filler(schema, material, everything=everything).value(schema, 0)


class _Filler:
    def __init__(self, root: Any, material: Material, *, everything: bool) -> None:
        self._root = root
        self._material = material
        self._everything = everything
        self._left = _MAX_VALUES

    def value(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if depth > _DEEPEST or self._left < -_MAX_VALUES:
            return None
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if members := _list(schema, "enum"):
            return next((member for member in members if self._material.mentions(str(member))), members[0])
        match _type(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer":
                return _bounded(round(self._material.number()), schema, whole=True)
            case "number":
                return _bounded(self._material.number(), schema, whole=False)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._string(schema)

    def said(self, schema: Any, name: str, depth: int) -> bool:
        """Whether something in the text fits an optional property."""
        self._left -= 1
        if self._deep(depth):
            return False
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return self._material.mentions(str(schema["const"]))
        if members := _list(schema, "enum"):
            return any(self._material.mentions(str(member)) for member in members)
        match _type(schema):
            case "object":
                return any(self.said(inner, key, depth + 1) for key, inner in _mapping(schema, "properties").items())
            case "array":
                return self.said(schema.get("items"), name, depth + 1)
            case "integer" | "number":
                return self._material.has_number
            case "boolean":
                return any(map(self._material.mentions, words_of(name)))
            case "null":
                return False
            case _:
                known = _FORMATS.get(str(schema.get("format")))
                return self._material.has_word if known is None else bool(known[0].search(self._material.text))

    def _deep(self, depth: int) -> bool:
        return depth >= _DEEP or self._left <= 0

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = _mapping(schema, "properties")
        required = [name for name in _list(schema, "required") if isinstance(name, str)]
        value = {name: self.value(properties.get(name), depth + 1) for name in required}
        for name, inner in properties.items():
            if name not in value and not self._deep(depth) and (self._everything or self.said(inner, name, depth + 1)):
                value[name] = self.value(inner, depth + 1)
        return {name: value[name] for name in (*properties, *required) if name in value}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        if prefix := _list(schema, "prefixItems"):
            return [self.value(item, depth + 1) for item in prefix]
        least = min(int(_limit(schema, "minItems") or 0), _MAX_ITEMS)
        most = _limit(schema, "maxItems")
        count = max(least, 0 if self._deep(depth) or most == 0 else 1)
        return [self.value(schema.get("items"), depth + 1) for _ in range(count)]

    def _string(self, schema: Mapping[str, Any]) -> str:
        if known := _FORMATS.get(str(schema.get("format"))):
            found = known[0].search(self._material.text)
            return found.group() if found else known[1]
        word = self._material.word()
        least, most = _limit(schema, "minLength"), _limit(schema, "maxLength")
        if least is not None and len(word) < least <= _MAX_TEXT:
            word = word.ljust(math.ceil(least), ".")
        return word if most is None or most < 0 else word[: int(most)]

    def _resolved(self, schema: Any, depth: int) -> Mapping[str, Any]:
        """The schema without references and choices."""
        for _ in range(_DEEPEST):
            self._left -= 1
            if not isinstance(schema, Mapping) or self._left < -_MAX_VALUES:
                return {}
            if isinstance(reference := schema.get("$ref"), str):
                schema = self._referred(reference)
            elif options := _list(schema, "anyOf") or _list(schema, "oneOf"):
                rest = {key: value for key, value in schema.items() if key not in {"anyOf", "oneOf"}}
                schema = _merged([rest, self._chosen(options, depth)])
            elif parts := _list(schema, "allOf"):
                rest = {key: value for key, value in schema.items() if key != "allOf"}
                schema = _merged(
                    [rest, *(self._resolved(part, depth + 1) if depth < _DEEPEST else {} for part in parts)]
                )
            else:
                return schema
        return {}

    def _chosen(self, options: Sequence[Any], depth: int) -> Any:
        """One of several schemas: the first that the text fits; null only where it is too deep for another."""
        nulls = [option for option in options if isinstance(option, Mapping) and option.get("type") == "null"]
        if nulls and self._deep(depth):
            return nulls[0]
        others = [option for option in options if option not in nulls] or list(options)
        return next((option for option in others if self.said(option, "", depth + 1)), others[0])

    def _referred(self, reference: str) -> Any:
        place = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            place = place.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(place, Mapping) else None
        return place


def _merged(schemas: Sequence[Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for schema in schemas:
        if not isinstance(schema, Mapping):
            continue
        properties = {**_mapping(merged, "properties"), **_mapping(schema, "properties")}
        required = [*_list(merged, "required"), *_list(schema, "required")]
        merged |= schema
        merged |= {"properties": properties} if properties else {}
        merged |= {"required": required} if required else {}
    return merged


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, Sequence) and not isinstance(kind, str):
        kind = next((one for one in kind if one != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _mapping(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = schema.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _limit(schema: Mapping[str, Any], key: str) -> float | int | None:
    value = schema.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return None
    return value


def _bounded(value: float, schema: Mapping[str, Any], *, whole: bool) -> float | int:
    """The number moved between the schema's bounds."""
    step = 1 if whole else 0.5
    above, below = _limit(schema, "exclusiveMinimum"), _limit(schema, "exclusiveMaximum")
    least, most = _limit(schema, "minimum"), _limit(schema, "maximum")
    if most is not None and value > most:
        value = math.floor(most) if whole else most
    if below is not None and value >= below:
        value = math.ceil(below) - step if whole else below - step
    if least is not None and value < least:
        value = math.ceil(least) if whole else least
    if above is not None and value <= above:
        value = math.floor(above) + step if whole else above + step
    multiple = _limit(schema, "multipleOf")
    if isinstance(multiple, int) and multiple > 0:
        value = math.ceil(value / multiple) * multiple
    return int(value) if whole else value


def _quoted(text: str) -> list[str]:
    return [next(filter(None, found.groups())).strip() for found in _QUOTED.finditer(text)]


def _capitalised(text: str, dull: frozenset[str]) -> list[str]:
    """Words with a capital, neighbours together (`New York`); those that only begin a sentence come last."""
    no_names = _NO_NAMES | dull
    runs: list[tuple[str, bool]] = []
    end = run_end = 0
    for found in _WORD.finditer(text):
        word, gap = found.group(), text[end : found.start()]
        if word[0].isupper() and len(word) > 1 and word.lower() not in no_names:
            if runs and gap == " " and end == run_end:
                runs[-1] = (f"{runs[-1][0]} {word}", False)
            else:
                begins = end == 0 or any(sign in gap for sign in ".!?\n:")
                runs.append((word, begins and not _LISTED.match(text, found.end())))
            run_end = found.end()
        end = found.end()
    return [word for word, doubtful in runs if not doubtful] + [word for word, doubtful in runs if doubtful]
