"""What a request's next attempt is: it begins anew after a failure, and goes on after an answer that cannot be used."""

from __future__ import annotations

import logging
import time

import msgspec

from k2think.dialogue.prompt import Prompt
from k2think.engine.native import Native
from k2think.engine.retry import Again, Retries
from k2think.errors import StructuredOutputFailed, UpstreamError
from k2think.inband.emulation import Emulation, Means
from k2think.settings import Tools
from k2think.upstreams.catalog import Model

logger = logging.getLogger(__name__)


class Course:
    """The `prompt`, the `model` and the `means` of the next attempt."""

    __slots__ = ("_asks_left", "_native", "means", "model", "prompt", "retries")

    def __init__(self, prompt: Prompt, model: Model, retries: Retries, native: Native, tools: Tools) -> None:
        if model.hidden:
            prompt = msgspec.structs.replace(prompt, reasoning="hidden")
        self.prompt = prompt
        self.model = model
        self.retries = retries
        self.means = Means(
            native=native.of(model.id, time.monotonic()),
            template=tools.toolify_custom_prompt,
            live=tools.tool_streaming == "live",
            may_ask=tools.tool_retries > 0,
        )
        self._native = native
        self._asks_left = tools.tool_retries

    def after_failure(self, error: UpstreamError, emulation: Emulation, credential_id: str) -> Again | None:
        """Say when to try once more; None if that makes no sense."""
        now = time.monotonic()
        if self._native.learn(self.model.id, error, emulation.delegated, now):
            # Not the upstream's own words: they may quote the prompt.
            logger.info("the gateway does for a while itself what %s does not: %s", self.model.id, error.param)
            self.means = msgspec.structs.replace(self.means, native=self._native.of(self.model.id, now))
            return Again()
        return self.retries.decide(error, credential_id)

    def after_problem(self, emulation: Emulation) -> None:
        """Ask the model again. Raises `StructuredOutputFailed` if it was asked often enough."""
        if not self._asks_left:
            raise StructuredOutputFailed(emulation.problem, text=emulation.answer)
        self._asks_left -= 1
        self.prompt = emulation.asked_again()
        self.means = emulation.means_again(may_ask=self._asks_left > 0)
