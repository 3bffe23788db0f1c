"""Puts together what an upstream lacks: writes it into the prompt, and reads it out of the answer with a Chain.

K2-Think's service has no field for thinking, keeps no tool turns, knows neither tools nor JSON answers, and cannot be
trusted with stop sequences. The order of the chain: thinking is told from answer, calls are read out of the answer,
JSON is taken out of it, it is cut at a stop sequence, tokens are counted, thinking is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import msgspec
from msgspec import Struct

from k2think.dialogue.events import Event, Finish, ReasoningDelta, TextDelta, Usage, joined
from k2think.dialogue.machine import Chain, Machine
from k2think.dialogue.outcome import Outcome
from k2think.dialogue.prompt import Message, OutputFormat, Prompt, Toolbox
from k2think.inband.checking import ArgumentChecker
from k2think.inband.history import without_thinking, write_calls
from k2think.inband.limits import StopReader
from k2think.inband.parts import Opener
from k2think.inband.presentation import present
from k2think.inband.reasoning import ReasoningReader
from k2think.inband.structured import StructuredReader, write_format
from k2think.inband.toolcalls.desk import CallDesk, Handling
from k2think.inband.toolcalls.names import Names
from k2think.inband.toolcalls.reader import CallReader
from k2think.inband.toolcalls.rescue import Rescue
from k2think.inband.toolprompt import complaint_turns, write_tools
from k2think.inband.usage import UsageMeter, estimate_prompt

MAX_ANSWER = 1024 * 1024
"""Characters of an answer that are kept in case the model must be shown it again."""

MAX_UNREAD = 4096
"""Events that wait to be read at once: reading a few thousand takes a millisecond, for which everybody else waits."""


class Means(Struct, frozen=True):
    """How an attempt may go about tools and JSON.

    `native`: what the upstream does by itself. `template`: the user's own tool instructions. `live`: calls are streamed
    while they are written. `may_ask`: the model can be asked again. `again`: it has been. `spent`: what that has cost.
    """

    native: frozenset[str] = frozenset()
    template: str = ""
    live: bool = True
    may_ask: bool = False
    again: bool = False
    spent: Usage = Usage(0, 0, 0)


class Emulation:
    """One attempt's rewritten `prompt` and the chain that reads its answer. Single-use, like the machines in it.

    Raises `InvalidRequest` when made for schemas that are none.
    """

    __slots__ = (
        "_answer",
        "_asked",
        "_chain",
        "_desk",
        "_means",
        "_reasoning",
        "_spent",
        "_stop",
        "_structured",
        "_unread",
        "prompt",
    )

    def __init__(self, prompt: Prompt, opener: Opener, means: Means | None = None) -> None:
        self._means = means = means or Means()
        toolbox = prompt.tools
        written = toolbox is not None and "tools" not in means.native
        if toolbox is not None and toolbox.required:
            prompt = msgspec.structs.replace(prompt, output=None)  # a call is no JSON answer
        output = prompt.output
        # A server that lets nothing but JSON out would let no call out that is written in tags.
        if output and not written and _kind(output) in means.native:
            output = None
        self._asked = prompt
        self._answer = _Memory() if toolbox or output else None
        self._reasoning = ReasoningReader(opener)
        self._desk: CallDesk | None = None
        self._structured = StructuredReader(output) if output else None
        self._stop = StopReader(prompt.sampling.stop) if prompt.sampling.stop else None
        # Where nobody reads along, and nothing in the text can end the answer, much of it is read at once.
        self._unread: list[Event] | None = None if prompt.live or toolbox or self._stop else []
        machines: list[Machine[Event, Event]] = [self._reasoning]
        if self._answer:
            machines.append(self._answer)
        if toolbox:
            # Also where the server makes calls itself: one without a parser for this model leaves them in the text.
            machines.append(self._call_reader(toolbox, may_ask=means.may_ask and written))
        if self._structured:
            machines.append(self._structured)
        if self._stop:
            machines.append(self._stop)
        self.prompt = self._written(toolbox if written else None, output)
        machines.append(UsageMeter(partial(estimate_prompt, self.prompt), means.spent))
        # Nobody could read JSON behind thinking.
        shown = "parsed" if prompt.output and prompt.reasoning == "raw" else prompt.reasoning
        self._chain = Chain(*machines, *present(shown))

    @property
    def satisfied(self) -> bool:
        """Whether the answer is complete although upstream may go on."""
        return (self._stop is not None and self._stop.done) or (self._desk is not None and self._desk.full)

    @property
    def observed(self) -> Literal["present", "implied"] | None:
        """How the text began, if it showed."""
        return self._reasoning.observed

    @property
    def problem(self) -> str:
        """After `close`: why the answer cannot be used, for the model to read; empty if it can."""
        if self._stop is not None and self._stop.done:
            return ""  # the answer has ended before that
        if self._desk is not None and self._desk.problem:
            return self._desk.problem
        return self._structured.problem if self._structured is not None else ""

    @property
    def delegated(self) -> frozenset[str]:
        """What the upstream is asked to do by itself."""
        found = {"tools"} if self.prompt.tools is not None else set[str]()
        if self.prompt.output is not None:
            found.add(_kind(self.prompt.output))
        return frozenset(found)

    @property
    def answer(self) -> str:
        """The model's answer as it was written, without its thinking; kept where it may have to be shown again."""
        return self._answer.text() if self._answer else ""

    def asked_again(self) -> Prompt:
        """The prompt for the next attempt, in which the model is told what is wrong with this one's answer."""
        wanted: Literal["call", "JSON"] = "call" if self._desk is not None and self._desk.problem else "JSON"
        turns = complaint_turns(self.answer, self.problem, wanted=wanted)
        return msgspec.structs.replace(self._asked, messages=(*self._asked.messages, *turns))

    def means_again(self, *, may_ask: bool) -> Means:
        """The means for that attempt."""
        return msgspec.structs.replace(self._means, again=True, may_ask=may_ask, spent=self._spent)

    def outcomes(self) -> list[tuple[str | None, Outcome]]:
        """After `close`: what became of each call, by the tool's name, and of a JSON answer (None)."""
        found: list[tuple[str | None, Outcome]] = [*(self._desk.outcomes if self._desk is not None else ())]
        if self._structured is not None and not self._structured.cut and not (self._desk and self._desk.begun):
            if self._structured.problem:
                found.append((None, "reasked" if self._means.may_ask else "failed"))
            else:
                found.append((None, "repaired" if self._structured.repaired else "parsed"))
        return found

    def feed_all(self, events: Sequence[Event]) -> Sequence[Event]:
        """Read what one read brought; where nobody reads along, as one piece of text, and perhaps later."""
        if self._unread is not None:
            self._unread += events
            if len(self._unread) < MAX_UNREAD:
                return ()
            events, self._unread = self._unread, []
        return self._chain.feed_all(events if self._asked.live else joined(events))

    def close(self) -> Sequence[Event]:
        """Read the end; gives `Usage`, at least: that of all attempts so far.

        If there is a problem, neither that nor `Finish`, for the answer goes on in another attempt.
        """
        events = [*self._chain.feed_all(joined(self._unread or ())), *self._chain.close()]
        if not self.problem:
            return events
        self._spent = next(event for event in events if type(event) is Usage)
        rest = [event for event in events if type(event) is not Usage and type(event) is not Finish]
        return [*rest, ReasoningDelta("\n\n")] if self._asked.reasoning == "parsed" else rest

    def _call_reader(self, toolbox: Toolbox, *, may_ask: bool) -> CallReader:
        means, live = self._means, self._asked.live
        names = Names(toolbox.tools)
        checker = ArgumentChecker(toolbox.tools)
        handling = Handling(
            live=means.live and live,
            may_ask=may_ask,
            undo=not live,
            text="first" if not live or not (toolbox.required or means.again) else "drop" if means.again else "wait",
        )
        self._desk = CallDesk(toolbox, checker, handling)

        def read(text: str) -> Sequence[Event]:
            # Read as they are: whether they can be used is judged when they are made.
            desk = CallDesk(toolbox, checker, Handling(live=True, may_ask=False, undo=False))
            reader = CallReader(names, desk)
            return [*reader.feed(TextDelta(text)), *reader.close()]

        reasoning = self._reasoning  # not from `self`, which holds the reader that is made here
        return CallReader(names, self._desk, Rescue(lambda: reasoning.unended, read))

    def _written(self, toolbox: Toolbox | None, output: OutputFormat | None) -> Prompt:
        """The prompt as the upstream gets it: what it has no place for stands in the conversation."""
        prompt = self._asked
        messages = tuple(map(_forgetful, prompt.messages))
        if prompt.tools is None or toolbox is not None:
            messages = write_calls(messages)
        if toolbox is not None:
            messages = write_tools(messages, toolbox, self._means.template, output=output is not None)
        if output is not None:
            messages = write_format(messages, output, with_tools=toolbox is not None)
        if toolbox is None and output is None:
            return msgspec.structs.replace(prompt, messages=messages)
        return msgspec.structs.replace(
            prompt,
            messages=messages,
            sampling=msgspec.structs.replace(prompt.sampling, stop=()),  # they are about text, not calls and JSON
            tools=None if toolbox is not None else prompt.tools,
            output=None if output is not None else prompt.output,
        )


class _Memory:
    """A Machine that passes everything, and keeps the text."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0

    def feed(self, event: Event) -> Sequence[Event]:
        """Take one event."""
        if type(event) is TextDelta and self._length < MAX_ANSWER:
            self._pieces.append(event.text)
            self._length += len(event.text)
        return (event,)

    def close(self) -> Sequence[Event]:
        """Nothing is held."""
        return ()

    def text(self) -> str:
        """What came, up to the limit."""
        return "".join(self._pieces)


def _forgetful(message: Message) -> Message:
    """An earlier turn as the model should see it: without its thinking."""
    if message.role != "assistant" or (text := without_thinking(message.text)) == message.text:
        return message
    return msgspec.structs.replace(message, text=text)


def _kind(output: OutputFormat) -> str:
    return "json_object" if output.schema is None else "json_schema"
