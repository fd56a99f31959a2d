"""The whole pipeline against the virtual bench, whose truth is known: coverage, bias, calibration."""
