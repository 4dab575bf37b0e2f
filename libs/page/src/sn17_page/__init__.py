"""The page in the browser: its files, its own routes, and what it reads from the miner."""

from sn17_page.miner import MinerReader, MinerUnavailableError
from sn17_page.routes import Page, page_router
from sn17_page.views import Queue

__all__ = ["MinerReader", "MinerUnavailableError", "Page", "Queue", "page_router"]
