"""What was measured of a window for the estimators to be compared with: energy of the GPUs alone, per output token."""

from typing import Any

from inference_energy.contracts.figure import worst


def gpu_energy(energy: dict[str, Any], load: dict[str, Any]) -> dict[str, Any]:
    """J per output token of the GPUs, total, without subtraction; of a window of prompts alone J per prompt token.

    Args:
        energy: the window in energy.json.
        load: the window in steady_load.json.

    Returns:
        `energy_per_output_token_j` or `energy_per_prompt_token_j`, `boundary` (gpu), `basis` (total), `grade`, and
        `unavailable`, the reason where there is none: that of the window's own figure, or that no GPU was measured.
    """
    counts, of_prompts = load["counts"], load["kind"] == "prefill"
    key = "energy_per_prompt_token_j" if of_prompts else "energy_per_output_token_j"
    figure = energy["figures"]["energy_total_j" if of_prompts else "energy_total_per_output_token_j"]
    tokens = counts["prompt_tokens"] - counts["cached_tokens"] if of_prompts else counts["output_tokens"]
    found: dict[str, Any] = {
        key: None,
        "boundary": "gpu",
        "basis": "total",
        "grade": figure["grade"],
        "unavailable": None,
    }
    if figure["value"] is None:
        return {**found, "unavailable": " ".join(reason["detail"] for reason in figure["reasons"])}
    cards: dict[str, dict[str, Any]] = {}
    for device in energy["devices"]:
        # Of two sources of one card that which was added up; where the whole machine was, any of the card's.
        is_card = device["domain"] == "gpu" and device["energy_j"] is not None
        if is_card and (device["summed"] or device["device"] not in cards):
            cards[device["device"]] = device
    if not cards or not tokens:
        return {**found, "unavailable": "no energy of a GPU was measured in the window."}
    joules = sum(float(card["energy_j"]) for card in cards.values())
    grade = worst([card["grade"] for card in cards.values()])
    return {**found, key: joules / tokens, "grade": grade}
