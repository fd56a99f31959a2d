"""Tests of the virtual bench."""
