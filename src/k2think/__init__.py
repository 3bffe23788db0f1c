"""An OpenAI-compatible gateway for MBZUAI's K2-Think reasoning model."""

__version__ = "0.1.0"
