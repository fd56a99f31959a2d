"""Carbon and water that follow from the measured energy."""
