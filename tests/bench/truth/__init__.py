"""Tests of what really happens on the virtual node."""
