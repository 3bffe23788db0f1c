"""The rules by which thinking and answer are told apart: tokens of the scanner in, events out.

By state (`_ON_TEXT` and `_ON_TAG` at the end are the same as tables):

    head       nothing but blanks yet. They go if a tag follows. Plain text is what `Opener` says
    undecided  held: plain text from the head on. A closing think tag: it was thinking. An opening one, or the
               end: it was answer
    think      everything is thinking, drafts in answer tags too, up to the closing tag; never closed: all of it
    nested     held: what follows a closing tag when an opening one stood within the thinking, so that nobody can
               know yet. Another closing tag: still thinking. An answer tag at once, or the end: it was answer
    details    thinking as Open WebUI folds it, without its summary (`summary`) and the quoting of its lines
    between    blanks behind the thinking, which go
    wrapped    inside answer tags: all is answer, think tags too
    after      behind a closing answer tag: blanks go if a tag or the end follows, and are kept if text does
    answer     not in answer tags. An opening think tag at the start of a line is thinking again; a closing one that
               nothing opened tells that all before it was thinking, too late
    midline    held: an opening think tag within a line of the answer, and what follows. A closing one: it was
               thinking. The end: it was text

In an answer (and where it may be one) tags in code are text (`quoting`), with one exception: a closing answer tag with
nothing but blanks behind it, up to the end, closes even there, because a fence that the model forgot to close must not
show it. Answer tags in no code never show. Blanks next to a tag go, but not those before a tag within an answer, or its
parts would stick together.

Every decision depends on places in the text, never on how it was cut, and no token is read more than three times. Held
longer than a tag, its look-ahead and blanks is text in three states only: `undecided` is for answers that nobody reads
while they are written; the other two are rare and bounded, and past their bound they end as at the end of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, TypeAlias

from k2think.dialogue.events import Event, ReasoningDelta, TextDelta
from k2think.inband.details import Unquoter
from k2think.inband.held import MAX_SUSPENDED, MAX_UNDECIDED, Held
from k2think.inband.outlet import Outlet
from k2think.inband.quoting import CodeTracker
from k2think.inband.scanner import BLANKS, Kind, Tag

Opener: TypeAlias = Literal["present", "implied", "undecided"]
"""What plain text at the head is: answer (thinking has an opening tag), thinking (the prompt opened it), or unknown."""

Observed: TypeAlias = Literal["present", "implied"]

_State: TypeAlias = Literal[
    "head", "undecided", "think", "nested", "details", "summary", "between", "wrapped", "after", "answer", "midline"
]
_ANSWERING = frozenset[_State](("answer", "wrapped"))


class Parter:
    """Takes tokens, then the `end`; `given` are the events since the last time. `observed`: see `ReasoningReader`."""

    def __init__(self, opener: Opener) -> None:
        self.observed: Observed | None = None
        self._opener: Opener = opener
        self._opened = False  # thinking has begun with a tag, or has ended, or came by its own channel
        self._native = False  # thinking came by its own channel
        self._state: _State = "head"
        self._depth = 0  # opening tags without a closing one
        self._code = CodeTracker()
        self._unquoter: Unquoter  # from the opening tag of Open WebUI's details on
        self._out = Outlet()
        self._held: Held | None = None  # not None in the three states that hold
        self._replaying = False  # what was held is being read again: nothing is held a second time

    @property
    def unended(self) -> bool:
        """Whether the last that came is thinking; by its own channel too, if no text has followed it."""
        return self._state in {"think", "details", "summary"} or (self._native and self._state == "head")

    def take(self, token: str | Tag) -> None:
        """Take the next text or tag."""
        if isinstance(token, str):
            self._ON_TEXT[self._state](self, token)
        else:
            self._take_tag(token)

    def take_whole(self, thinking: str, answer: str) -> None:
        """Take, before all else, what stands in `<think>…</think><answer>…</answer>`: none of it quoted or in code."""
        self.observed = None if self._native else "present"
        self._opened = True
        self._state = "after"
        self._code.feed(answer)
        self._out.give(ReasoningDelta(thinking.strip(BLANKS)), TextDelta(answer.strip(BLANKS)))

    def native(self) -> bool:
        """Thinking came by its own channel, so text at the head is answer. Whether what is held must go out first."""
        self._opener = "present"
        self._opened = self._native = True
        return self._state != "head"  # blanks at the head may still stand before a tag

    def end(self) -> None:
        """The text has ended, or something else comes in between: what was held is decided."""
        while self._held is not None:  # what a doubtful tag decides may have to be held again
            self._decide(self._held)
        if self._state == "details":
            self._out.put(self._unquoter.close())
        implied_head = self._state == "head" and self._opener == "implied"
        if self._out.closing or implied_head or self._state in {"between", "after"}:
            self._out.drop()
        self._out.keep()

    def given(self) -> list[Event]:
        """The events since the last time."""
        return self._out.take()

    def plain(self) -> type[TextDelta | ReasoningDelta] | None:
        """As `flowing`, for text that need not `pass_by`: in an answer, without backtick, tilde and line end."""
        return None if self._state in _ANSWERING and not self._code.settled() else self.flowing()

    def flowing(self) -> type[TextDelta | ReasoningDelta] | None:
        """What text becomes as it is, if no tag and no blank at its end is in it; it may `pass_by`. None: not now."""
        if not self._out.idle():
            return None
        return ReasoningDelta if self._state == "think" else TextDelta if self._state in _ANSWERING else None

    def pass_by(self, text: str) -> None:
        """Read text along that has gone out as it was, while all was `flowing`."""
        if self._state in _ANSWERING:
            self._code.feed(text)

    def _take_tag(self, tag: Tag) -> None:
        state = self._state
        action = self._ON_TAG.get((state, tag.kind))
        if self._held is not None:
            quoted = self._code.quoted()
            if quoted and state == "undecided" and tag.kind == "think_close":
                self._go_on(self._held.add_doubtful(tag))
            elif quoted or action is None:
                self._hold(tag)
            else:
                action(self, tag)
        elif action is None:
            self._ON_TEXT[state](self, tag.text)
        elif state in _ANSWERING and self._code.quoted():
            self._code.feed(tag.text)
            (self._out.put_closer if tag.kind == "answer_close" else self._out.put)(tag.text)
        else:
            action(self, tag)

    # What text does in each state.

    def _head_text(self, text: str) -> None:
        words = text.lstrip(BLANKS)
        self._out.put(text.removesuffix(words))
        if not words:
            return
        if self._opener == "present":
            self._state = "answer"
            self._answer_text(words)
        elif self._opener == "implied":
            self._state = "think"
            self._depth = 1
            self._out.begin(ReasoningDelta)
            self._think_text(words)
        else:
            self._suspend("undecided", words)

    def _think_text(self, text: str) -> None:
        self._out.put(text)

    def _details_text(self, text: str) -> None:
        self._out.put(self._unquoter.feed(text))

    def _summary_text(self, text: str) -> None:
        """A summary says how long the thinking took; that is no part of it."""

    def _between_text(self, text: str) -> None:
        if text.strip(BLANKS):
            self._state = "answer"
            self._code.reset()
            self._answer_text(text)

    def _after_text(self, text: str) -> None:
        if text.strip(BLANKS):
            self._state = "answer"
        self._answer_text(text)

    def _answer_text(self, text: str) -> None:
        self._code.feed(text)
        self._out.put(text)

    # What tags do. Blanks before the tag wait in the outlet; each of these says whether they go.

    def _drop_tag(self, _tag: Tag) -> None:
        self._out.drop()

    def _open_head(self, tag: Tag) -> None:
        if not self._native:
            self.observed = "present"
        (self._open_thinking if tag.kind == "think_open" else self._open_details)(tag)

    def _open_thinking(self, _tag: Tag) -> None:
        self._opened = True
        self._depth = 1
        self._state = "think"
        self._out.begin(ReasoningDelta)

    def _open_details(self, _tag: Tag) -> None:
        self._opened = True
        self._depth = 1
        self._state = "details"
        self._unquoter = Unquoter()
        self._out.begin(ReasoningDelta)

    def _open_within_answer(self, tag: Tag) -> None:
        self._out.keep()
        if self._code.line_start():
            (self._open_thinking if tag.kind == "think_open" else self._open_details)(tag)
        elif tag.kind == "think_open" and not self._replaying:
            self._suspend("midline", tag.text)
        else:
            self._answer_text(tag.text)

    def _open_within_thinking(self, tag: Tag) -> None:
        self._opened = True
        self._depth += 1
        if not self._out.trimming:  # else it only says again what the one before has said
            self._think_text(tag.text)

    def _close_thinking(self, tag: Tag) -> None:
        if self._depth > 1 and not self._replaying:
            self._depth -= 1
            self._suspend("nested", tag.text)
            self._code.reset()  # an answer would begin behind the tag
        else:
            self._end_thinking(tag)

    def _end_thinking(self, _tag: Tag) -> None:
        if not self._opened:
            self.observed = "implied"
            self._opened = True
        self._state = "between"
        self._out.begin(TextDelta)

    def _close_details(self, tag: Tag) -> None:
        if self._state == "details" and self._unquoter.quoted:
            self._details_text(tag.text)
        else:
            self._out.put(self._unquoter.close())
            self._end_thinking(tag)

    def _open_summary(self, tag: Tag) -> None:
        if self._out.trimming:
            self._state = "summary"
        else:
            self._details_text(tag.text)

    def _close_summary(self, _tag: Tag) -> None:
        self._state = "details"

    def _close_unopened(self, tag: Tag) -> None:
        if not self._opened:
            if self._state == "answer":
                self._out.keep()
            self._end_thinking(tag)
        elif self._state != "answer":
            self._out.drop()

    def _open_answer(self, _tag: Tag) -> None:
        if self._state in _ANSWERING:
            self._out.keep()
        self._state = "wrapped"
        self._code.reset()
        self._out.begin(TextDelta)

    def _close_answer(self, _tag: Tag) -> None:
        self._state = "after"
        self._out.drop()
        self._out.go_on(TextDelta)

    # What is held until more of the text is known.

    def _suspend(self, state: _State, token: str) -> None:
        self._state = state
        self._held = Held(self._code, MAX_UNDECIDED if state == "undecided" else MAX_SUSPENDED)
        self._hold(token)

    def _hold(self, token: str | Tag) -> None:
        assert self._held is not None
        self._go_on(self._held.add(token))

    def _go_on(self, rest: str | Tag | None) -> None:
        assert self._held is not None
        if self._held.proved() or rest is not None:
            self._decide(self._held)
        if rest is not None:
            self.take(rest)

    def _decide(self, held: Held) -> None:
        """Nothing more will be known: what is held is answer, unless a closing tag in it stood in no code after all."""
        self._held = None
        held.end()
        tokens = held.tokens
        if held.doubtful is not None:
            self._out.begin(ReasoningDelta)
            self._put_all(tokens[: held.doubtful])
            self._end_thinking(Tag("think_close", ""))
            for token in tokens[held.doubtful + 1 :]:
                self.take(token)
            return
        if self._state == "nested":
            self._end_thinking(Tag("think_close", ""))
            del tokens[0]
        else:
            self._code.reset()
            self._state = "answer"
        self._replaying = True
        for token in tokens:
            self.take(token)
        self._replaying = False

    def _was_thinking(self, tag: Tag) -> None:
        assert self._held is not None
        tokens, self._held = self._held.tokens, None
        if self._state != "nested":
            self._depth = 1
            self._out.begin(ReasoningDelta)
        if self._state == "midline":
            del tokens[0]
        if self._state != "undecided":
            self._opened = True
            kinds = [token.kind for token in tokens if isinstance(token, Tag)]
            self._depth = max(1, self._depth + kinds.count("think_open") - kinds.count("think_close"))
        self._put_all(tokens)
        self._close_thinking(tag)

    def _was_answer(self, tag: Tag) -> None:
        assert self._held is not None
        self._decide(self._held)
        self._take_tag(tag)

    def _details_behind_undecided(self, tag: Tag) -> None:
        (self._was_answer if self._code.line_start() else self._hold)(tag)

    def _answer_behind_nested(self, tag: Tag) -> None:
        assert self._held is not None
        if all(isinstance(token, str) and not token.strip(BLANKS) for token in self._held.tokens[1:]):
            self._was_answer(tag)
        else:
            self._hold(tag)

    def _put_all(self, tokens: Sequence[str | Tag]) -> None:
        for token in tokens:
            self._out.put(token if isinstance(token, str) else token.text)

    _ON_TEXT: ClassVar[dict[_State, Callable[[Parter, str], None]]] = {
        "head": _head_text,
        "undecided": _hold,
        "think": _think_text,
        "nested": _hold,
        "details": _details_text,
        "summary": _summary_text,
        "between": _between_text,
        "wrapped": _answer_text,
        "after": _after_text,
        "answer": _answer_text,
        "midline": _hold,
    }

    # A tag that has no row in a state is text there.
    _ON_TAG: ClassVar[dict[tuple[_State, Kind], Callable[[Parter, Tag], None]]] = {
        ("head", "think_open"): _open_head,
        ("head", "think_close"): _close_unopened,
        ("head", "answer_open"): _open_answer,
        ("head", "answer_close"): _drop_tag,
        ("head", "details_open"): _open_head,
        ("undecided", "think_open"): _was_answer,
        ("undecided", "think_close"): _was_thinking,
        ("undecided", "details_open"): _details_behind_undecided,
        ("think", "think_open"): _open_within_thinking,
        ("think", "think_close"): _close_thinking,
        ("nested", "think_close"): _was_thinking,
        ("nested", "answer_open"): _answer_behind_nested,
        ("details", "details_close"): _close_details,
        ("details", "summary_open"): _open_summary,
        ("summary", "summary_close"): _close_summary,
        ("summary", "details_close"): _close_details,
        ("between", "think_open"): _open_thinking,
        ("between", "think_close"): _drop_tag,
        ("between", "answer_open"): _open_answer,
        ("between", "answer_close"): _drop_tag,
        ("between", "details_open"): _open_details,
        ("wrapped", "answer_open"): _open_answer,
        ("wrapped", "answer_close"): _close_answer,
        ("after", "think_open"): _open_thinking,
        ("after", "think_close"): _close_unopened,
        ("after", "answer_open"): _open_answer,
        ("after", "answer_close"): _drop_tag,
        ("after", "details_open"): _open_details,
        ("answer", "think_open"): _open_within_answer,
        ("answer", "think_close"): _close_unopened,
        ("answer", "answer_open"): _open_answer,
        ("answer", "answer_close"): _close_answer,
        ("answer", "details_open"): _open_within_answer,
        ("midline", "think_close"): _was_thinking,
    }
