"""A model is never told as a counter, nor given an interval."""

import synthetic
from synthetic import recompute


def test_a_modelled_device_says_so_and_shows_no_counter(tmp_path):
    truth = synthetic.build_session(tmp_path, sources=synthetic.MODELLED_CPU)
    found = recompute(tmp_path, synthetic.plan([truth]))
    for cell in found["cells"]:
        (device,) = cell["devices"]
        assert (device["reading"], device["grade"], device["counter_energy_j"]) == ("modelled", "modelled", None)
        assert cell["figures"]["energy_total_j"]["value"] is not None
        assert cell["figures"]["energy_total_j"]["interval_95"] is None
