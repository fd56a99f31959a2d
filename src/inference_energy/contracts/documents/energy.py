"""energy.json, carbon.json and fits/<server>.json: the energy of each window, its footprint, and what a token costs."""

from typing import ClassVar

from inference_energy.contracts.documents.document import DerivedDocument, Document, Part
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import Grade


class CalibrationEntry(Part, frozen=True, kw_only=True):
    """An entry of the calibration file that was applied.

    Attributes:
        name: `node`, or a GPU's UUID.
        gain: gain of the line meter = gain * own + offset.
        offset_w: its offset.
        u_gain: standard uncertainty of the gain.
        u_offset_w: standard uncertainty of the offset.
        covariance_w: covariance of gain and offset.
        chi2_per_dof: chi squared over degrees of freedom of the comparison.
        channels: channels whose sum was compared, each as `source device domain`.
        grade: grade of the calibration.
        date: when the comparison was made.
        toolkit_version: toolkit that made it.
        phases: number of phases of the comparison.
        meter: the meter in words.
    """

    name: str
    gain: float
    offset_w: float
    u_gain: float
    u_offset_w: float
    covariance_w: float
    chi2_per_dof: float
    channels: list[str]
    grade: Grade
    date: str
    toolkit_version: str
    phases: int
    meter: str


class CalibrationRecord(Part, frozen=True, kw_only=True):
    """The calibration of a session's power.

    Attributes:
        sha256: digest of the calibration file.
        applied: entries that were applied.
        notes: why others were not.
    """

    sha256: str
    applied: list[CalibrationEntry]
    notes: list[Reason]


class AppliedCorrection(Part, frozen=True, kw_only=True):
    """The correction of one channel.

    Attributes:
        name: entry of the calibration.
        gain: its gain.
        offset_w: this channel's part of the entry's offset.
    """

    name: str
    gain: float
    offset_w: float


class DeviceEnergy(Part, frozen=True, kw_only=True):
    """The energy of one channel over a window.

    Attributes:
        device: the GPU's UUID, `package-0`, `cpu`, ...
        domain: power domain, as in power.parquet.
        source: name of the power source.
        grade: grade of its energy.
        reading: what the energy was taken from: `counter`, `average`, `instant` or `modelled`; null where nothing is
            there.
        summed: whether it is part of the window's energy.
        energy_j: energy, calibrated where there is a calibration; null where the log does not cover the window.
        calibration: the correction in `energy_j`; null without one.
        counter_energy_j: rise of the hardware energy counter, uncalibrated; null where it does not cover the window.
        ratios: integral of `average` and of `instant` power over the counter's rise; empty without a counter.
        clocks_event_shares: share of the samples with each kind of clocks event; null where they are not logged.
    """

    device: str
    domain: str
    source: str
    grade: Grade
    reading: str | None
    summed: bool
    energy_j: float | None
    calibration: AppliedCorrection | None
    counter_energy_j: float | None
    ratios: dict[str, float | None]
    clocks_event_shares: dict[str, float] | None


class EnergyBins(Part, frozen=True, kw_only=True):
    """The course of a window, bin by bin (one second).

    Attributes:
        energy_total_j: energy in each bin; null where the log does not cover the window.
    """

    energy_total_j: list[float] | None


class EnergyWindow(Part, frozen=True, kw_only=True):
    """The energy of one window.

    Attributes:
        kind: `steady`, `prefill` or `decode`.
        start_ns: start after trimming.
        end_ns: end after trimming.
        devices: every channel.
        bins: its course.
        client: modelled `energy_j` and `share_of_energy` of the load client; empty where its cost was not recorded.
        figures: duration, power, energies, and energies per token and per request, by name.
    """

    kind: str
    start_ns: int
    end_ns: int
    devices: list[DeviceEnergy]
    bins: EnergyBins
    client: dict[str, Figure]
    figures: dict[str, Figure]


class IdlePowers(Part, frozen=True, kw_only=True):
    """The idle powers of a session.

    Attributes:
        cold_power_w: before the server started.
        loaded_power_w: with the server up and no request.
        post_power_w: after the server had stopped.
    """

    cold_power_w: Figure
    loaded_power_w: Figure
    post_power_w: Figure


class IdleDevices(Part, frozen=True, kw_only=True):
    """Each channel's part of the idle powers, by the channel's name; empty where there is no such idle.

    Attributes:
        cold: of the cold idle.
        loaded: of the loaded idle.
        post: of the post-run idle.
    """

    cold: dict[str, float]
    loaded: dict[str, float]
    post: dict[str, float]


class EnergyDocument(DerivedDocument, frozen=True, kw_only=True):
    """The energy of every window of a session.

    Attributes:
        boundary: the power domains inside the figures.
        boundary_note: sentence on what is outside; empty where nothing is.
        grade: weakest grade of the energies.
        calibration: the calibration; null without one.
        idle: idle powers.
        idle_devices_w: each channel's part of them.
        windows: each window by name.
    """

    FILE: ClassVar[str] = "energy.json"

    boundary: str
    boundary_note: str | None
    grade: Grade
    calibration: CalibrationRecord | None
    idle: IdlePowers
    idle_devices_w: IdleDevices
    windows: dict[str, EnergyWindow]


class CarbonFactors(Part, frozen=True, kw_only=True):
    """Carbon intensity of the grid.

    Attributes:
        zone: grid zone.
        intensity_g_per_kwh: carbon intensity [gCO2e/kWh].
        basis: `lifecycle` or `direct`.
        source: where the number is from.
    """

    zone: str
    intensity_g_per_kwh: float
    basis: str
    source: str


class WaterFactors(Part, frozen=True, kw_only=True):
    """Water factors.

    Attributes:
        wue_site_l_per_kwh: water usage effectiveness on site [L/kWh of IT energy]; null where not given.
        ewif_grid_l_per_kwh: water consumption at power stations [L/kWh generated]; null where not given.
        source: where the numbers are from.
    """

    wue_site_l_per_kwh: float | None
    ewif_grid_l_per_kwh: float | None
    source: str | None


class ImpactFactors(Part, frozen=True, kw_only=True):
    """The configured factors of the footprint.

    Attributes:
        carbon: carbon intensity.
        pue: power usage effectiveness of the facility.
        pue_source: where it is from.
        water: water factors.
    """

    carbon: CarbonFactors
    pue: float
    pue_source: str
    water: WaterFactors


class CarbonWindow(Part, frozen=True, kw_only=True):
    """The footprint of one window.

    Attributes:
        figures: carbon and water, by name.
    """

    figures: dict[str, Figure]


class CarbonDocument(DerivedDocument, frozen=True, kw_only=True):
    """Carbon and water of every window of a session.

    Attributes:
        factors: the configured factors.
        windows: each window by name.
    """

    FILE: ClassVar[str] = "carbon.json"

    factors: ImpactFactors
    windows: dict[str, CarbonWindow]


class FitResidual(Part, frozen=True, kw_only=True):
    """A window in a fit.

    Attributes:
        cell: name of the window, `<session>.<window>`.
        measured_j: measured energy.
        predicted_j: energy by the fit.
        ratio: predicted over measured.
    """

    cell: str
    measured_j: float
    predicted_j: float
    ratio: float


class HeldOutErrors(Part, frozen=True, kw_only=True):
    """Errors of a fit on windows that were left out of it, one at a time.

    Attributes:
        mean_abs_relative_error: mean of |ratio - 1|.
        worst_abs_relative_error: largest of them.
        ratios: predicted over measured energy of each window, by its name.
    """

    mean_abs_relative_error: float
    worst_abs_relative_error: float
    ratios: dict[str, float]


class FitModel(Part, frozen=True, kw_only=True):
    """One model of a window's energy, fitted over the windows of a server.

    Attributes:
        name: name of the model.
        formula: its formula.
        energy_basis: `total` or `active`: the energy that it explains.
        weighting: `relative` (weights 1/E^2) or `plain`.
        cells: windows that were fitted.
        dof: number of windows less number of coefficients.
        condition_number: condition number of the weighted design with columns of length one; null where infinite.
        r2: coefficient of determination; null without a fit.
        residuals: each window; empty without a fit.
        mean_abs_relative_error: mean of |ratio - 1| over the residuals.
        leave_one_out: errors on windows left out; null where too few are left.
        refused: why the coefficients have no value; empty where they have.
        coefficients: figure of each term: `power` [W], `prompt` and `generated` [J/token].
    """

    name: str
    formula: str
    energy_basis: str
    weighting: str
    cells: list[str]
    dof: int
    condition_number: float | None
    r2: float | None
    residuals: list[FitResidual]
    mean_abs_relative_error: float | None
    leave_one_out: HeldOutErrors | None
    refused: list[Reason]
    coefficients: dict[str, Figure]


class FitWindow(Part, frozen=True, kw_only=True):
    """A window that a fit can use.

    Attributes:
        cell: name of the window, `<session>.<window>`.
        kind: `steady`, `prefill` or `decode`.
        duration_s: its length.
        uncached_prompt_tokens: prompt tokens less those from the prefix cache.
        cached_tokens_known: whether the server told the latter.
        generated_tokens: generated tokens.
        energy_total_j: total energy.
        energy_active_j: energy above cold idle; null without a cold idle.
    """

    cell: str
    kind: str
    duration_s: float
    uncached_prompt_tokens: float
    cached_tokens_known: bool
    generated_tokens: float
    energy_total_j: float
    energy_active_j: float | None


class ExcludedWindow(Part, frozen=True, kw_only=True):
    """A window that was left out.

    Attributes:
        cell: name of the window, `<session>.<window>`.
        reasons: why.
    """

    cell: str
    reasons: list[Reason]


class FitDocument(Document, frozen=True, kw_only=True):
    """What a token costs on one server, by each model of the family.

    Attributes:
        version: version of the document.
        machine: name of the machine.
        server: name of the server in the configuration.
        weighting: weighting of the fits.
        models: each model by name.
        cells: windows that a fit can use.
        excluded: the other windows.
        missing_cells: kinds of window that would tell the coefficients apart and were not measured, in words.
    """

    FILE: ClassVar[str] = "fits/<server>.json"

    version: int
    machine: str
    server: str
    weighting: str
    models: dict[str, FitModel]
    cells: list[FitWindow]
    excluded: list[ExcludedWindow]
    missing_cells: list[str]
