"""Chat completions on all their paths: what is refused, what goes wrong on purpose, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from k2think.simulator import answers
from k2think.simulator.accounts import BadBody, Refused, authenticate, read_object
from k2think.simulator.attached import Attached, attach, count_images
from k2think.simulator.exchange import ClientLeft, Exchange
from k2think.simulator.options import ACCOUNT_FAULTS, Account
from k2think.simulator.reply import Chat, Flavour, HungUp, accept_task, answer
from k2think.simulator.script import BadDirective, Script, read_script
from k2think.simulator.state import SimulatorState


async def chat(exchange: Exchange, state: SimulatorState, flavour: Flavour) -> None:
    """Answer one chat request, and keep a record of it."""
    try:
        raw = await exchange.body()
        email, account = _caller(exchange, state, flavour)
        body = read_object(exchange, raw, "0.6.28" if flavour == "openai" else state.options.release)
    except ClientLeft:
        return
    except BadBody as bad:
        await answers.detail(exchange, 422, bad.detail)
        return
    except Refused as refused:
        if flavour == "openai":
            await exchange.json(401, answers.server_error(401))
        else:
            await answers.detail(exchange, 401, refused.text)
        return
    record = state.begin(exchange.path, email, exchange.headers, body)
    options = state.options
    ending: Literal["completed", "cancelled", "failed"] = "failed"
    exchange.watch()
    try:
        spread = _spread(body) if flavour in {"web", "openai_path"} else body
        script = _with_fault(read_script(body.get("messages")), state, email, account)
        record.fault = script.fault
        attached = attach(body, state, email) if flavour == "web" else Attached(body.get("messages"), [])
        if options.vision is not False:
            script = replace(script, images=count_images(attached.messages))
        this = Chat(exchange, state, flavour, spread, script, record.number, attached)
        limit = options.max_concurrent
        if limit and state.open[email] > limit:
            await exchange.json(429, answers.server_error(429))
        elif not await _refused(this, body):
            record.seen = attached.messages
            ending = await answer(this)
    except BadDirective as bad:
        await answers.detail(exchange, 400, f"Simulator: {bad}")
    except ClientLeft:
        ending = "cancelled"
    except HungUp:
        pass
    finally:
        # Before anything waits: who has the whole answer may ask at once how it ended.
        state.end(record, ending, exchange.status)
        await exchange.unwatch()


def _caller(exchange: Exchange, state: SimulatorState, flavour: Flavour) -> tuple[str, Account]:
    if flavour == "guest":
        return "guest", Account()
    if flavour == "openai":
        key = state.options.openai_key
        if key is not None and exchange.headers.get("authorization") != f"Bearer {key}":
            raise Refused(answers.UNAUTHORIZED)
        return "openai", Account()
    email, account, _ = authenticate(exchange, state)
    return email, account


def _spread(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as Open WebUI hands it to the model server: `params` lie beside the other fields."""
    params = body.get("params")
    spread = dict(body)
    if isinstance(params, Mapping):
        custom = params.get("custom_params")
        spread |= {name: value for name, value in params.items() if name not in {"system", "custom_params"}}
        spread |= custom if isinstance(custom, Mapping) else {}
    return spread


def _with_fault(script: Script, state: SimulatorState, email: str, account: Account) -> Script:
    """The script with the fault that is due now: its own, the account's, or everybody's."""
    if script.fault:
        if script.fault_for and script.fault_for != email:
            return replace(script, fault="")
        if script.times and not state.still_faulty(script.key, script.times):
            return replace(script, fault="")
    else:
        of_chats = [fault for fault in account.faults if fault not in ACCOUNT_FAULTS]
        script = replace(script, fault=of_chats[0] if of_chats else state.options.fault)
    if script.fault == "json_on_stream":
        script = replace(script, form=script.form | {"json"})
    return script


async def _refused(this: Chat, body: Mapping[str, Any]) -> bool:
    """Answer what Open WebUI answers before it asks a model; False: nothing of that."""
    exchange, options = this.exchange, this.state.options
    if body.get("model") not in options.models:
        if this.flavour == "openai":
            error = answers.server_error(404)["error"] | {
                "message": f"The model `{body.get('model')}` does not exist.",
                "param": "model",
                "code": "model_not_found",
            }
            await exchange.json(404, {"error": error})
        else:
            await answers.detail(exchange, 403 if this.flavour == "openai_path" else 400, answers.MODEL_NOT_FOUND)
        return True
    if this.flavour == "openai" and (refused := [name for name in options.refuses if body.get(name)]):
        error = answers.server_error(400)["error"] | {"message": f"'{refused[0]}' is not supported by this server."}
        await exchange.json(400, {"error": error | {"param": refused[0]}})
        return True
    if this.flavour == "openai" and options.vision is False and count_images(body.get("messages")):
        error = answers.server_error(400)["error"] | {"message": f"{body['model']} is not a multimodal model."}
        await exchange.json(400, {"error": error})
        return True
    if this.flavour != "web":
        return False
    return await _refused_by_web(this, body)


async def _refused_by_web(this: Chat, body: Mapping[str, Any]) -> bool:
    exchange, old = this.exchange, this.state.options.release == "0.6.28"
    item = body.get("model_item")
    if isinstance(item, Mapping) and item.get("direct"):
        await (
            exchange.json(200, None)
            if old
            else answers.detail(exchange, 400, "{'error': 'Client session disconnected.'}")
        )
        return True
    if "messages" not in body and old:
        await exchange.json(200, None)
        return True
    chat_id = body.get("chat_id")
    if not chat_id:
        return False
    temporary = str(chat_id).startswith("local:")
    if not this.state.options.chats_exist or temporary:
        if old:
            await answers.detail(exchange, 400, "404: Something went wrong :/")
            return True
        if not temporary:
            await answers.detail(exchange, 404, answers.NOT_FOUND)
            return True
    if body.get("session_id") and body.get("id"):
        await accept_task(this)
        return True
    if body.get("id") and not old:
        await exchange.json(200, None)
        return True
    return False
