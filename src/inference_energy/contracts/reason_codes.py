"""Reason codes: every way in which a figure can be missing, or has to be read with care.

`CODES` is the one table of them. A code either invalidates the figure that it stands on, which then has no value, or is
a note on a valid one. The module that raises a code decides which figures it stands on; the table lists them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from inference_energy.contracts.figure import Reason

Effect = Literal["invalidates", "note"]

MAX_HELD_OUT_ERROR = 0.25
"""Largest mean relative error of the windows left out of a fit; above it, its coefficients are refused."""

MIN_DEGREES_OF_FREEDOM = 2
"""Fewest windows more than coefficients of a fit. With one, leaving a window out leaves an exact solution."""


@dataclass(frozen=True)
class Code:
    """One row of the table.

    Attributes:
        meaning: sentence on what happened.
        effect: whether the figure loses its value.
        figures: figures that it can stand on, in words.
    """

    meaning: str
    effect: Effect
    figures: str


_ENERGY = "energy and power of the window, and what follows from them"
_PER_TOKEN = "token counts and rates, energy per token and per request"
_WINDOW = "energy, power, rates and latencies of the window"

CODES: dict[str, Code] = {
    "no_power_source": Code("No power source that can be added up was logged.", "invalidates", _ENERGY),
    "power_not_covered": Code(
        "The power log does not cover the window; nothing is extrapolated.", "invalidates", _ENERGY
    ),
    "gap": Code(
        "The power log has a hole of more than analysis.max_gap_periods sampling periods, or one at the window's edge.",
        "invalidates",
        _ENERGY,
    ),
    "stuck_sensor": Code(
        "A reading did not change for seconds, was zero or negative, or was missing too often.", "invalidates", _ENERGY
    ),
    "counter_mismatch": Code(
        "Integrated power and the hardware energy counter differ by more than analysis.counter_tolerance, or the "
        "counter did not grow.",
        "invalidates",
        _ENERGY,
    ),
    "counter_reset": Code(
        "The hardware energy counter began anew, went backwards, or rose by more than the device can draw, so the "
        "energy in between is not known.",
        "invalidates",
        _ENERGY,
    ),
    "implausible_power": Code(
        "Too many readings cannot be: they are negative, or beyond the plausibility limit of the board or socket.",
        "invalidates",
        _ENERGY,
    ),
    "foreign_process": Code(
        "Another process computed on the GPU: neither the server nor one that it started.", "invalidates", _ENERGY
    ),
    "thermal_throttle": Code("The GPU slowed down because it was too hot.", "invalidates", _ENERGY),
    "not_steady": Code(
        "Power, throughput, requests running or in flight, or the use of the KV cache show a trend over a window that "
        "should be steady.",
        "invalidates",
        _ENERGY + "; a note on latencies and rates",
    ),
    "client_lag": Code(
        "The load client sent requests later than scheduled by more than analysis.max_client_lag_s (99th percentile).",
        "invalidates",
        _WINDOW,
    ),
    "token_mismatch": Code(
        "The client's token counts and the server's counters differ by more than analysis.token_tolerance.",
        "invalidates",
        _PER_TOKEN,
    ),
    "server_restarted": Code(
        "The server's counters began anew during the window, so it was restarted.",
        "invalidates",
        _PER_TOKEN + ", queue times",
    ),
    "other_models": Code(
        "The server worked for another of its models meanwhile, by more than analysis.token_tolerance of the measured "
        "one's tokens; that work is in the energy.",
        "invalidates",
        _PER_TOKEN,
    ),
    "metrics_unclear": Code(
        "The series of the server's metric cannot be reduced to one number: of several models, with labels of unknown "
        "meaning, of ranks that disagree, or with values that cannot be.",
        "invalidates",
        "queue times",
    ),
    "token_counts_missing": Code("The server gave no token counts for some requests.", "invalidates", _PER_TOKEN),
    "failed_requests": Code("More than analysis.max_failed_share of the requests failed.", "invalidates", _PER_TOKEN),
    "cached_tokens_unknown": Code(
        "The server did not say how many prompt tokens came from its cache; a fit takes them as not cached.",
        "invalidates",
        "cached tokens; a note on coefficients of the fit",
    ),
    "cold_idle_missing": Code("There is no idle power from before the server started.", "invalidates", "active energy"),
    "loaded_idle_missing": Code(
        "There is no idle power of the loaded server.", "invalidates", "marginal energy, loaded idle power"
    ),
    "post_idle_missing": Code(
        "There is no idle power from after the server stopped.", "invalidates", "post-run idle power"
    ),
    "below_idle": Code(
        "The window took less power than the idle that is to be subtracted.", "invalidates", "active or marginal energy"
    ),
    "no_requests": Code("No request finished in the window.", "invalidates", "latencies, figures per request"),
    "no_tokens": Code("No token of this kind falls into the window.", "invalidates", "figures per token"),
    "no_schedule": Code(
        "Requests had no schedule, as in a closed loop.", "invalidates", "offered rate, latencies from the schedule"
    ),
    "few_samples": Code(
        "So few requests lie beyond this percentile that nothing bounds it from above.", "invalidates", "latencies"
    ),
    "wide_bucket": Code(
        "The percentile lies in a bucket of the server's histogram that begins at zero or has no end.",
        "invalidates",
        "queue times",
    ),
    "no_chunk_times": Code(
        "There is a limit on the time between tokens, but the times of arrivals were not recorded.",
        "invalidates",
        "goodput",
    ),
    "client_energy_unknown": Code(
        "No sensor measured the CPU, or its busy time was not recorded.", "invalidates", "the load client's energy"
    ),
    "no_factor": Code("The configuration gives no factor for this.", "invalidates", "carbon or water"),
    "too_few_cells": Code(
        f"There are fewer than {MIN_DEGREES_OF_FREEDOM} windows more than coefficients.",
        "invalidates",
        "coefficients of the fit",
    ),
    "collinear": Code(
        "The windows are too alike to tell the coefficients apart (condition number above the limit).",
        "invalidates",
        "coefficients of the fit",
    ),
    "mixed_boundaries": Code(
        "The windows measured different parts of the machine.", "invalidates", "coefficients of the fit"
    ),
    "poor_generalisation": Code(
        "A fit to the other windows misses the one left out by more than "
        f"{100 * MAX_HELD_OUT_ERROR:g} % on average, however well it fits its own.",
        "invalidates",
        "coefficients of the fit",
    ),
    "negative_coefficient": Code(
        "The fit wants a negative energy for something, so the model does not describe these windows.",
        "invalidates",
        "coefficients of the fit",
    ),
    "no_limits": Code("analysis.slo says of no request what is good.", "invalidates", "goodput per joule"),
    "no_load_sweep": Code(
        "There are too few windows of one workload at different rates, or no power of the loaded server without load.",
        "invalidates",
        "load proportionality, daily use",
    ),
    "load_gap": Code(
        "Two neighbouring levels of a sweep lie so far apart that what is between them would be a guess.",
        "invalidates",
        "load proportionality, daily use",
    ),
    "beyond_full_load": Code(
        "More was asked than could be served within the limits, so goodput was less than at a lower rate.",
        "note",
        "levels that are left out of a sweep",
    ),
    "no_traffic": Code("The configuration names no profile of traffic.", "invalidates", "daily use"),
    "traffic_beyond_sweep": Code(
        "An hour of the profile asks more than the largest level that was measured.", "invalidates", "daily use"
    ),
    "no_embodied": Code(
        "The configuration does not say what making the hardware emitted.", "invalidates", "embodied carbon, SCI"
    ),
    "no_graded_prompts": Code(
        "Prompts of the window have no right answer to compare with.",
        "invalidates",
        "accuracy, energy per correct answer",
    ),
    "answers_not_kept": Code(
        "The texts of the answers were not kept.", "invalidates", "accuracy, energy per correct answer"
    ),
    "no_correct_answers": Code("Not one answer was right.", "invalidates", "energy per correct answer"),
    "no_quality_floor": Code("The configuration gives no quality floor.", "invalidates", "goodput at a quality floor"),
    "below_quality_floor": Code(
        "The lower bound of the accuracy lies below metrics.quality.floor.", "invalidates", "goodput at a quality floor"
    ),
    "not_split": Code(
        "The receipts' policy does not tell prefill from decode.", "invalidates", "shares of the energy of requests"
    ),
    "no_parameters": Code("The number of the model's parameters is not known.", "invalidates", "ESS"),
    "interval_reaches_zero": Code(
        "The interval of what is divided by reaches zero, so the quotient has no upper bound.",
        "invalidates",
        "tokens and requests per joule",
    ),
    "comparison_only": Code(
        "Given for comparison with other work only; docs/reference/metrics.md has its defects.", "note", "ESS"
    ),
    "interpolated_levels": Code(
        "Between the levels that were measured, power was taken to lie on straight lines.",
        "note",
        "load proportionality, daily use",
    ),
    "whole_requests_only": Code(
        "Only requests that lie wholly in the window are in the percentiles: the others pay a part elsewhere.",
        "note",
        "energy of a request",
    ),
    "repeated_questions": Code(
        "Questions were asked more than once; the interval counts each once.", "note", "accuracy"
    ),
    "steadiness_not_judged": Code("The window is too short to test for a trend.", "note", "energy of steady windows"),
    "tokens_unreconciled": Code("The server's token counters could not be read.", "note", "token counts"),
    "tokens_unresolved": Code(
        "The server's token counters are read too seldom for so short a window to tell whether they agree with the "
        "client's counts.",
        "note",
        "token counts and rates, energy per token",
    ),
    "tokens_differ": Code(
        "Over the whole window the client's counts and the server's counters differ by a little, or by no more than "
        "requests that were cut off or failed can explain.",
        "note",
        "token counts and rates",
    ),
    "prompt_length_differs": Code(
        "Prompts had another length at the server than was asked for.", "note", "prompt tokens"
    ),
    "interpolated": Code(
        "The percentile was interpolated within a bucket of the server's histogram.", "note", "queue times"
    ),
    "power_cap": Code("The GPU ran at its power limit; normal at full load.", "note", _ENERGY),
    "unidentified_process": Code(
        "A process on the GPU could not be told from the server, as from within a container.", "note", _ENERGY
    ),
    "hardware_slowdown": Code("The board slowed the GPU down (power brake or hardware slowdown).", "note", _ENERGY),
    "idle_drift": Code(
        "Idle power after the run differs from that before by more than a tenth.", "note", "idle power, active energy"
    ),
    "other_reading": Code("The configured power reading does not exist here; the other was used.", "note", _ENERGY),
    "averaging_unknown": Code(
        "Over how long the power readings average is not known; they count for when they were read.", "note", _ENERGY
    ),
    "mig_card": Code(
        "The GPU is partitioned (MIG) and has no power of its instances: the energy is that of the whole card.",
        "note",
        _ENERGY,
    ),
    "counter_lost": Code(
        "The hardware energy counter could not be read over the whole window, as after an error of the driver; the "
        "integral of power was taken instead.",
        "note",
        _ENERGY,
    ),
    "cross_check_stuck": Code(
        "The power readings beside a hardware energy counter did not change for seconds, so there they check nothing.",
        "note",
        _ENERGY,
    ),
    "readings_withheld": Code(
        "A few readings cannot be (negative, beyond the plausibility limit of the board or socket, or a counter that "
        "went back for a moment); they were left out.",
        "note",
        _ENERGY,
    ),
    "counter_left_out": Code(
        "A counter of the same kind stood still, or a GPU gave no power, when sampling began; it is not in the "
        "figures.",
        "note",
        _ENERGY,
    ),
    "counter_alone": Code(
        "No power readings cover the window beside the GPU's hardware energy counter, so nothing checks it.",
        "note",
        _ENERGY,
    ),
    "counter_not_checked": Code(
        "The hardware energy counter does not cover the window, so it checks nothing.", "note", _ENERGY
    ),
    "holes": Code(
        "The power log has holes of more than three sampling periods; they were bridged and are in the budget.",
        "note",
        _ENERGY,
    ),
    "edge_held": Code(
        "A power log of another tool begins or ends up to one sampling period inside the window; its nearest reading "
        "was held.",
        "note",
        _ENERGY,
    ),
    "sensor_error_unknown": Code(
        "Nothing states the error of the sensor, as of a meter at the plug, so there is no interval.", "note", _ENERGY
    ),
    "steady_from": Code("The window was still settling at its start; only its steady part was taken.", "note", _WINDOW),
    "ended_in_drain": Code(
        "Goodput includes requests that ended after the sending time, which the achieved rate leaves out.",
        "note",
        "goodput of a load test",
    ),
    "aborted_requests": Code(
        "Requests were cut off at the end of the drain; their tokens are not counted.", "note", "figures per token"
    ),
    "calibration_not_applied": Code(
        "An entry of analysis.calibration was made with other channels than those summed here, so it was not applied.",
        "note",
        _ENERGY,
    ),
    "calibration_elsewhere": Code(
        "The file of analysis.calibration has entries of devices that were not measured.", "note", "the session's notes"
    ),
    "idle_outliers": Code("Single seconds of the idle phase lie far from the others.", "note", "idle power"),
    "idle_trend": Code("Power changed steadily over the idle phase.", "note", "idle power"),
    "preemptions": Code("The server ran out of KV cache and recomputed requests.", "note", "latencies, energy"),
    "attached": Code("The server was not launched by the toolkit.", "note", "launch"),
    "launch_failed": Code("The server did not become ready.", "invalidates", "launch"),
    "leftover_processes": Code("Processes of the server had to be killed or could not be ended.", "note", "launch"),
    "no_warmup": Code("The session had no warm-up.", "note", "warm-up"),
    "warmup_failures": Code("Requests of the warm-up failed.", "note", "warm-up"),
    "warmup_too_short": Code("Throughput was still changing in the second half of the warm-up.", "note", "warm-up"),
}


def reason(code: str, detail: str) -> Reason:
    """Return a reason with a code of the table.

    Raises:
        KeyError: the table has no such code.
    """
    if code not in CODES:
        raise KeyError(f"no reason code {code!r} in contracts/reason_codes.py")
    return Reason(code, detail)


def blocking(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Return the reasons that invalidate a figure."""
    return tuple(r for r in reasons if CODES[r.code].effect == "invalidates")


def deduplicated(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Return the reasons in order, each once."""
    return tuple(dict.fromkeys(reasons))
