"""What will be measured: cells, prompts, schedules, and the specification each rule gets."""
