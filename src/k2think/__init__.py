"""An OpenAI-compatible gateway for MBZUAI's K2-Think reasoning model."""

NAME = "K2Think API Proxy"
"""How a gateway names itself, at `/` and to people."""
__version__ = "0.1.0"
