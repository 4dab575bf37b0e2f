"""The table of benchmark results names every file that is kept, and says what the file says."""

from __future__ import annotations

import json
from pathlib import Path

BENCH = Path(__file__).parents[2] / "dev/bench"


def table() -> dict[str, list[str]]:
    """File name -> cells of its row."""
    rows = [line for line in (BENCH / "README.md").read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]
    return {row[0].strip("`"): row[1:] for row in cells if row[0].endswith(".json`")}


def test_every_result_has_a_row_and_every_row_a_result() -> None:
    assert table().keys() == {file.name for file in (BENCH / "results").iterdir()}


def test_commit_and_date_are_those_of_the_file() -> None:
    for name, (_, _, commit, date) in table().items():
        found = json.loads((BENCH / "results" / name).read_text())
        source = (found.get("rows") or [{}])[0] if name.startswith("chaos-") else found
        assert commit == (source.get("commit", "")[:7] or "-"), name
        assert date == (source.get("date", "")[:10] or "-"), name


def kill_sentence() -> str:
    """What docs/gateway.md says of the run in which everything is killed."""
    found = json.loads((BENCH / "results/gateway-kills.json").read_text())
    kills = found["kills"]
    workers = [count for name, count in kills.items() if name.startswith("worker ")]
    journal = found["journal"]
    return (
        f"{found['tasks']:,} tasks through a gateway on Postgres, a miner and {len(workers)} workers, with"
        f" `kill -9` for the gateway {kills['gateway']} times, Postgres {kills['postgres']}, the miner"
        f" {kills['miner']} and workers {sum(workers)} times: {found['lost']} lost;"
        f" {journal['tasks_sent_more_than_once']} were delivered more than once, each time the same bytes;"
        f" {found['answers_with_other_bytes']} of {found['fetched_again']:,} repeated answers differed"
        f" (`gateway-kills.json`)."
    )


def test_the_docs_say_of_the_kill_run_what_its_file_says() -> None:
    text = " ".join((BENCH.parents[1] / "docs/gateway.md").read_text().split())
    assert kill_sentence() in text, f"docs/gateway.md should say: {kill_sentence()}"
