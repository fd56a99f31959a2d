"""The Snakemake scripts, run as Snakemake does: with an object called `snakemake` in their names."""

import json
import runpy
from pathlib import Path

import pytest
from jinja2 import Environment
from report_sample import make_sample
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, Wildcards

from inference_energy.errors import InputError

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


class Job:
    def __init__(self, inputs, params, output):
        self.input = InputFiles(fromdict=inputs)
        self.params = Params(fromdict=params)
        self.output = OutputFiles(fromdict=output)
        self.log = Log([str(Path(next(iter(output.values()))).with_suffix(".log"))])


def run(script, **job):
    runpy.run_path(str(REPOSITORY / "scripts" / script), {"snakemake": Job(**job)})


SESSIONS = [{"session": "sweep", "machine": "h100-box"}]


@pytest.mark.parametrize("sessions", [SESSIONS, json.dumps(SESSIONS)])
def test_report(tmp_path, sessions):
    sample = make_sample(tmp_path)
    files = sample.session
    inputs = {"summary": str(sample.summary_path), "environments": [str(sample.environment)]}
    inputs |= {kind: [str(getattr(files, kind))] for kind in ("power", "phases", "requests", "receipts", "session")}
    run(
        "report.py",
        inputs=inputs,
        params={"sessions": sessions},
        output={"report": str(tmp_path / "report.html")},
    )
    html = (tmp_path / "report.html").read_text()
    assert "sweep on h100-box" in html
    assert 'id="figure-receipts"' in html


def test_power_trace(tmp_path):
    sample = make_sample(tmp_path)
    run(
        "power_trace.py",
        inputs={"power": str(sample.session.power), "phases": str(sample.session.phases)},
        params={"session": "sweep", "machine": "h100-box"},
        output={"page": str(tmp_path / "trace.html")},
    )
    assert "Power trace: sweep on h100-box" in (tmp_path / "trace.html").read_text()


def test_the_log_of_a_script_holds_its_error(tmp_path):
    sample = make_sample(tmp_path)
    sample.session.phases.write_text("not JSON")
    with pytest.raises(InputError):
        run(
            "power_trace.py",
            inputs={"power": str(sample.session.power), "phases": str(sample.session.phases)},
            params={"session": "sweep", "machine": "h100-box"},
            output={"page": str(tmp_path / "trace.html")},
        )
    assert "InputError: " in (tmp_path / "trace.log").read_text()


def test_power_trace_with_the_cold_idle_of_the_energies(tmp_path):
    sample = make_sample(tmp_path)
    energy = tmp_path / "energy.json"
    names = {"version": 1, "session": "sweep", "machine": "h100-box", "server": "llama"}
    facts = {"boundary": "gpu", "boundary_note": None, "grade": "counter", "calibration": None, "windows": {}}
    devices = {"cold": {}, "loaded": {}, "post": {}}
    energy.write_text(json.dumps({**names, **facts, "idle": sample.summary["idle"][0], "idle_devices_w": devices}))
    run(
        "power_trace.py",
        inputs={"power": str(sample.session.power), "phases": str(sample.session.phases), "energy": str(energy)},
        params={"session": "sweep", "machine": "h100-box"},
        output={"page": str(tmp_path / "trace.html")},
    )
    assert json.dumps("cold idle, 71.0 ± 4.3 W") in (tmp_path / "trace.html").read_text()


def test_captions_render():
    wildcards = Wildcards(fromdict={"session": "sweep", "machine": "h100-box"})
    for path in sorted((REPOSITORY / "workflow" / "report").glob("*.rst")):
        job = type("Job", (), {"wildcards": wildcards})
        text = Environment(autoescape=False).from_string(path.read_text()).render(snakemake=job)
        assert "{" not in text
        assert len(text) > 80
