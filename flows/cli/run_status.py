"""The runs of a site on a terminal: how each stands, whom it waits for, and for a partner what has left the building.

Why: the same rows as on Prefect's page, where there is no browser. Runs: on every site. Source: own.
"""

from pathlib import Path
from typing import Any

from data_contracts.errors import ProtocolError
from flows.cli.tables import print_table
from flows.run_tables import ROUND_COLUMNS, own_figures, round_rows, seconds_of, sent_rows
from flows.site_directory import ROSTER_RUN, SiteDirectory, visit_site
from flows.site_settings import role_at
from flows.watching import RunStanding, Sent, Watch


def show_runs(home: Path, run_id: str | None) -> dict[str, Any]:
    """Print one run with its rounds, or one line for each run that lies in the site's mailbox.

    Args:
        home: Of a site that is on a roster; anywhere else there is nothing to show.
        run_id: One run; None for all.

    Returns:
        The same as plain data, by run.
    """
    if role_at(home) in (None, "mailbox") or not (home / "roster.json").exists():
        return {}
    with visit_site(home) as site:
        names = [run_id] if run_id else _known(site)
        watches = {name: Watch(site.board(name)) for name in names}
        found = {name: _standing(watch, name) for name, watch in watches.items()}
        print()
        rows = [
            [
                each.run_id,
                each.phase,
                each.rounds[-1].round if each.rounds else "-",
                ", ".join(each.awaited) or "-",
            ]
            for each in found.values()
        ]
        print_table(("run", "phase", "round", "awaited"), rows or [["none", "", "", ""]])
        if run_id is None:
            return {name: standing.as_json() for name, standing in found.items()}
        sent = watches[run_id].sent(site.name) if site.settings.role == "partner" else []
        return {run_id: _show(site, found[run_id], sent)}


def _standing(watch: Watch, name: str) -> RunStanding:
    """How a run stands; one that was not sealed to this site, or is forged, says so and hides no other."""
    try:
        return watch.standing()
    except ProtocolError:
        return RunStanding(name, "closed to this site", (), ())


def _known(site: SiteDirectory) -> list[str]:
    listed = site.mailbox(copies=site.path / "received").runs()
    return [name for name in listed if not name.startswith(ROSTER_RUN)]


def _show(site: SiteDirectory, standing: RunStanding, sent: list[Sent]) -> dict[str, Any]:
    run = site.run(standing.run_id)
    seconds = seconds_of(run.path)
    print()
    print_table(ROUND_COLUMNS, round_rows(standing, seconds=seconds) or [["-"] * len(ROUND_COLUMNS)])
    figures = own_figures((run.result or {}).get("uplift") or {"metrics": {}})
    if figures:
        print(f"\nown results of {site.name}, which nobody else sees:")
        print_table(("figure", "value"), [list(pair) for pair in figures.items()])
    if sent:
        print(f"\nwhat has left the building of {site.name}, in bytes:")
        kinds = sorted({each.kind for each in sent})
        print_table(("round", *kinds, "bytes"), sent_rows(sent))
    return {
        **standing.as_json(),
        "seconds": seconds,
        "own": figures,
        "sent": [vars(each) for each in sent],
        "sent_bytes": sum(each.bytes for each in sent),
    }
