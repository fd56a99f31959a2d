"""docs/validation/bench.md, written from the trials."""

from collections import Counter
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from inference_energy import __version__
from inference_energy.validation.calibration import Comparison
from inference_energy.validation.calibration import table as calibration_table
from inference_energy.validation.coverage import Coverage
from inference_energy.validation.scenarios import GAIN_STD, OFFSET_STD_W, SCENARIOS
from inference_energy.validation.tables import coverage_markdown, verdict

TEMPLATE = "bench.md.j2"


def page(found: Coverage, comparisons: list[Comparison], command: str) -> str:
    """The page.

    Args:
        found: the trials.
        comparisons: the calibration.
        command: what was typed to make it.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    template = environment.from_string(files("inference_energy.validation").joinpath(TEMPLATE).read_text())
    withheld: Counter[str] = Counter()
    for row in found.rows:
        withheld.update(row.withheld)
    errors = [row.energy_error for row in comparisons]
    given = [row for row in found.rows if row.bias is not None]
    return (
        template.render(
            command=command,
            version=__version__,
            found=found,
            trials=found.seeds * len({row.scenario for row in found.rows}),
            scenarios=SCENARIOS,
            gain=GAIN_STD,
            offset_w=OFFSET_STD_W,
            coverage=coverage_markdown(found.rows),
            verdict=verdict(found),
            worst_bias=max((abs(row.bias) for row in given if row.bias is not None), default=0.0),
            has_intervals=any(row.intervals for row in found.rows),
            withheld=sorted(withheld.items()),
            calibration=calibration_table(comparisons),
            worst_calibration=max(abs(error) for error in errors),
            mean_calibration=sum(abs(error) for error in errors) / len(errors),
        ).rstrip()
        + "\n"
    )
