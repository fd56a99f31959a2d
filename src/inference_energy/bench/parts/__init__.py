"""What the bench is made of: GPUs, model shapes, engine settings, sensors, faults, and the node that holds them."""
