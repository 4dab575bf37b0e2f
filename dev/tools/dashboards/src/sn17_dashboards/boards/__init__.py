"""The boards, in the order of the folder."""

from __future__ import annotations

from sn17_dashboards.boards.gateway import GATEWAY
from sn17_dashboards.boards.network import NETWORK
from sn17_dashboards.boards.operator import OPERATOR
from sn17_dashboards.boards.overview import OVERVIEW
from sn17_dashboards.boards.trellis import TRELLIS
from sn17_dashboards.model import Board

BOARDS: tuple[Board, ...] = (OVERVIEW, TRELLIS, OPERATOR, NETWORK, GATEWAY)
