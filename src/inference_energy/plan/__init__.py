"""The plan of a measurement: cells, prompts, schedules, and the parameters of each rule."""
