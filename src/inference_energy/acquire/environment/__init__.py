"""What the machine is: GPUs, CPU, memory, operating system, software."""
