"""What the report's sections on cells say: headlines, energy, work, devices and impact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inference_energy.present.formats import Place, place, significant
from inference_energy.present.inputs import channel_label, load_text
from inference_energy.present.tables import Cell, Table, column

Cells = Sequence[dict[str, Any]]

BASES = ("active", "total", "marginal")
"""In the order in which a single figure is chosen: where there is no cold idle, energy is given in full."""
BASIS_MEANING = {
    "total": "nothing subtracted",
    "active": "cold idle subtracted",
    "marginal": "loaded idle subtracted",
}


@dataclass(frozen=True)
class Headline:
    """One steady cell: what load, and the figures that answer for it.

    `energy` is that per output token, by basis; `main` is the basis that is shown large, with the full unit.
    """

    title: str
    where: str
    main: str
    energy: dict[str, Place]
    others: list[tuple[str, Place]]

    @property
    def notes(self) -> list[str]:
        """What is worth saying about the figures that are given, each sentence once."""
        places = [*self.energy.values(), *(shown for _, shown in self.others)]
        return list(dict.fromkeys(note for shown in places if shown.given for note in shown.reasons))


def footnotes(cards: Sequence[Headline]) -> list[str]:
    """Why figures that are given have no interval, each sentence once over all cards."""
    places = [shown for card in cards for shown in (*card.energy.values(), *(each for _, each in card.others))]
    return list(dict.fromkeys(shown.unbounded for shown in places if shown.unbounded))


def headlines(cells: Cells) -> list[Headline]:
    """The headline figures of each cell; figures of one kind share a unit over all cells."""
    energy = {
        basis: column(cells, "", *[energy_per_token(each) for each in BASES])[index]
        for index, basis in enumerate(BASES)
    }
    others = [
        ("mean power", column(cells, "", "power_mean_w")[0]),
        ("throughput", column(cells, "", "output_tokens_per_s")[0]),
    ]
    ranks = dict(zip(TTFT_RANKS, column(cells, "", *[f"ttft_{rank}_s" for rank in TTFT_RANKS]), strict=True))
    carbon = dict(zip(BASES, column(cells, "", *[carbon_per_1k(basis) for basis in BASES]), strict=True))
    return [
        Headline(
            title=load_text(cell),
            where=where(cell),
            main=main,
            energy={
                basis: place(cell["figures"].get(c.name), c.scale, per="output token" if basis == main else None)
                for basis, c in energy.items()
            },
            others=[
                (label, place(cell["figures"].get(c.name), c.scale, per=None))
                for label, c in [
                    *others,
                    *((f"TTFT {rank}", ranks[rank]) for rank in ("p50", _highest(cell))),
                    ("carbon, 1k output tokens", carbon[main]),
                ]
            ],
        )
        for cell in cells
        for main in (best_basis(cell) or BASES[0],)
    ]


TTFT_RANKS = ("p50", "p90", "p95", "p99")


def _highest(cell: dict[str, Any]) -> str:
    """The highest percentile of TTFT that enough requests lie beyond; p99 where there is none."""
    given = [rank for rank in TTFT_RANKS[1:] if (cell["figures"].get(f"ttft_{rank}_s") or {}).get("valid")]
    return given[-1] if given else TTFT_RANKS[-1]


def best_basis(cell: dict[str, Any]) -> str | None:
    """The first of `BASES` on which the cell's energy per output token is given; None where it is on none."""
    for basis in BASES:
        figure = cell["figures"].get(energy_per_token(basis))
        if figure and figure["valid"]:
            return basis
    return None


def energy_per_token(basis: str) -> str:
    """Name of the energy per output token on a basis."""
    return f"energy_{basis}_per_output_token_j"


def carbon_per_1k(basis: str) -> str:
    """Name of the carbon per 1000 output tokens on a basis."""
    return "carbon_per_1k_output_tokens_g" if basis == "total" else f"carbon_{basis}_per_1k_output_tokens_g"


def where(cell: dict[str, Any]) -> str:
    """Which model on which server and machine, and which cell of the experiment."""
    model, server = model_name(cell), str(cell.get("server") or "")
    parts = [model, server if server != model else "", str(cell.get("machine") or ""), str(cell["cell"])]
    return " · ".join(part for part in parts if part)


def model_name(cell: dict[str, Any]) -> str:
    """The cell's model; empty where the summary has none."""
    model = cell.get("model")
    return str((model.get("name") if isinstance(model, dict) else model) or "")


def energy_table(cells: Cells) -> Table:
    """Energy of each cell on each basis, whole and per token and request."""
    names = ("{}_j", "{}_kwh", "{}_per_output_token_j", "{}_per_prompt_token_j", "{}_per_request_j")
    headings = ("energy", "energy", "per output token", "per prompt token", "per request")
    columns = [
        column(cells, heading, *[f"energy_{name.format(basis)}" for basis in BASES], digits=4 if index < 2 else 3)
        for index, (name, heading) in enumerate(zip(names, headings, strict=True))
    ]
    table = Table(["basis", *[found[0].heading for found in columns], "boundary, grade"])
    for cell in cells:
        table.heading(cell_title(cell, cells))
        for index, basis in enumerate(BASES):
            shown = [found[index].read(cell) for found in columns]
            known = " · ".join(shown[0].qualifiers[1:]) if shown[0].qualifiers else "–"
            table.add(Cell(basis, "head"), *table.numbers(shown, tagged=False), Cell(known))
    return table


def work_table(cells: Cells) -> Table:
    """What was done in each cell: time, power, requests and tokens."""
    wanted = [
        ("duration", "duration_s"),
        ("mean power", "power_mean_w"),
        ("requests", "requests"),
        ("output tokens", "output_tokens"),
        ("prompt tokens", "prompt_tokens"),
        ("cached", "cached_tokens"),
        ("output tokens / s", "output_tokens_per_s"),
        ("requests / s", "requests_per_s"),
    ]
    columns = [column(cells, heading, name)[0] for heading, name in wanted]
    table = Table(["load", *[one.heading for one in columns]])
    for cell in cells:
        table.add(Cell(cell_title(cell, cells), "head"), *table.numbers([one.read(cell) for one in columns]))
    return table


def impact_table(cells: Cells) -> Table:
    """Carbon and water of each cell."""
    wanted = [
        ("carbon", "carbon_total_g"),
        ("per 1k output tokens", "carbon_per_1k_output_tokens_g"),
        ("per request", "carbon_per_request_g"),
        ("water, site", "water_site_l"),
        ("water, source", "water_source_l"),
        ("water, both", "water_total_l"),
    ]
    columns = [column(cells, heading, name)[0] for heading, name in wanted]
    table = Table(["load", *[one.heading for one in columns], "basis, boundary, grade"])
    for cell in cells:
        shown = [one.read(cell) for one in columns]
        known = next((" · ".join(one.qualifiers) for one in shown if one.qualifiers), "–")
        table.add(Cell(cell_title(cell, cells), "head"), *table.numbers(shown, tagged=False), Cell(known))
    return table


def cell_title(cell: dict[str, Any], cells: Cells) -> str:
    """A cell's load with its name, and its machine where the cells are of several."""
    kind = cell.get("kind", "steady")
    text = load_text(cell) + (f" ({kind} only)" if kind != "steady" else "") + f" · {cell['cell']}"
    return f"{text} · {cell['machine']}" if len({each.get("machine") for each in cells}) > 1 else text


def devices_table(cells: Cells) -> Table:
    """Energy of every channel, its counter beside the integrals of its power, and whether it is part of the sum.

    Where the window's energy is not given, neither is that of any channel: the reason may lie in each of them. The
    ratios stay, for they are what a check says.
    """
    headings = ["energy (J)", "read from", "counter (J)", *[f"{name} / counter" for name in READINGS], "in the sum"]
    table = Table(["device", *headings, "source, grade"])
    for cell in cells:
        if not cell.get("devices"):
            continue
        table.heading(cell_title(cell, cells))
        total = cell["figures"].get("energy_total_j")
        withheld = table.number(place(total)) if total and not total["valid"] else None
        for device in cell["devices"]:
            ratios = device.get("ratios") or {}
            table.add(
                Cell(channel_label(device["domain"], device["device"]), "head"),
                withheld or _amount(device.get("energy_j")),
                Cell(str(device.get("reading") or "–") + (", calibrated" if device.get("calibration") else "")),
                withheld or _amount(device.get("counter_energy_j")),
                *[Cell("–" if (r := ratios.get(name)) is None else f"{r:.4f}", "number") for name in READINGS],
                Cell("yes" if device.get("summed") else "no", "number"),
                Cell(f"{device.get('source', '')} · {device['grade']}"),
            )
    return table


READINGS = ("average", "instant")
"""The power readings whose integrals are compared with a counter."""


def _amount(value: float | None) -> Cell:
    return Cell("–" if value is None else significant(value, 4), "number")


def factors(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Carbon and water factors with their sources; what was not configured says so."""
    given = summary.get("factors")
    if not given:
        return []
    carbon, water = given["carbon"], given["water"]
    rows = [
        (
            "carbon intensity",
            f"{carbon['intensity_g_per_kwh']:g} g CO₂e / kWh, {carbon['basis']}, zone {carbon['zone']}; "
            f"source: {carbon['source']}",
        ),
        ("PUE", f"{given['pue']:g}; source: {given['pue_source']}"),
    ]
    for name, key in (("water, site (WUE)", "wue_site_l_per_kwh"), ("water, source (EWIF)", "ewif_grid_l_per_kwh")):
        value = water.get(key)
        rows.append((name, "not configured" if value is None else f"{value:g} L / kWh; source: {water['source']}"))
    return rows
