"""`/admin/tokens/updater`: how the automatic update is doing, and an update now."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from k2think.api.admin.answers import Refused, moment, stats, success
from k2think.credentials.account_book import Record
from k2think.credentials.mint import UpdateFailed
from k2think.gateway import Gateway

OFF = "Automatic updates are off (ENABLE_TOKEN_AUTO_UPDATE)."


def updater_router(gateway: Gateway) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/tokens/updater")
    refresher = gateway.refresher

    @router.get("/status", summary="How the automatic update is doing")
    async def updater_status() -> Response:
        if refresher is None:
            return JSONResponse({"status": "disabled", "message": OFF})
        try:
            progress = await refresher.progress()
        except UpdateFailed as error:
            raise Refused(str(error), status=503) from None
        problems = [_problem(record) for record in progress.accounts if record.reason]
        return success(
            is_running=gateway.is_refreshing,
            is_updating=progress.updating,
            update_interval=int(interval) if (interval := refresher.interval).is_integer() else interval,
            last_update=moment(progress.last_update),
            update_count=progress.update_count,
            error_count=progress.error_count,
            last_error=progress.last_error,
            next_update=moment(progress.next_update),
            files=gateway.files(),
            trigger=progress.trigger,
            accounts={
                "total": len(progress.accounts),
                "by_state": Counter(record.state for record in progress.accounts),
                "problems": problems,
            },
        )

    @router.post("/force-update", summary="Make all tokens anew, now")
    async def force_update() -> Response:
        if refresher is None:
            raise Refused(OFF)
        try:
            await refresher.update_now()
        except UpdateFailed as error:
            raise Refused(str(error), status=502) from None
        return success(f"Updated. Tokens in use: {len(gateway.keeper.pool)}.", **stats(gateway))

    return router


def _problem(record: Record) -> dict[str, Any]:
    return {
        "email": record.email,
        "state": record.state,
        "reason": record.reason,
        "retry_at": moment(record.retry_at) if record.state == "waiting" else None,
    }
