"""`/admin`: what the tokens and tools are doing, and what a person can do about it."""

from __future__ import annotations

from fastapi import APIRouter

from k2think.api.admin.requests import requests_router
from k2think.api.admin.tokens import tokens_router
from k2think.api.admin.tools import tools_router
from k2think.api.admin.updater import updater_router
from k2think.gateway import Gateway


def admin_router(gateway: Gateway) -> APIRouter:
    """All routes below `/admin`."""
    router = APIRouter(prefix="/admin", tags=["admin"])
    for part in (updater_router(gateway), tokens_router(gateway), requests_router(gateway), tools_router(gateway)):
        router.include_router(part)
    return router
