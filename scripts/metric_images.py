"""The pictures of docs/reference/metrics.md, drawn from a finished experiment: `make images`. Needs Chromium.

Arguments: the experiment's folder, and the folder for the pictures.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from inference_energy.contracts.documents.document import read_document
from inference_energy.contracts.documents.experiment import SummaryDocument
from inference_energy.present.metrics.section import metric_section

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 900, 420


def main(experiment: Path, pictures: Path) -> None:
    """Draw every figure of the report's section as metrics-*.png."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit("metric_images: Chromium is missing; on Debian: apt-get install chromium")
    section = metric_section(read_document(experiment / SummaryDocument.FILE, SummaryDocument))
    if section is None:
        sys.exit(f"metric_images: {experiment} has no metrics; run its experiment first")
    with tempfile.TemporaryDirectory() as folder:
        for name, plot in section.plots.items():
            plot.update_layout(width=WIDTH - 16, height=HEIGHT - 16, paper_bgcolor="white")
            page = Path(folder, f"{name}.html")
            plot.write_html(page, include_plotlyjs=True, config={"staticPlot": True})
            words = ["--headless", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1.5"]
            words += ["--virtual-time-budget=8000", f"--window-size={WIDTH},{HEIGHT}"]
            picture = pictures / f"{name}.png"
            command = [browser, *words, f"--screenshot={picture}", page.as_uri()]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            print(picture)


main(Path(sys.argv[1]), Path(sys.argv[2]))
