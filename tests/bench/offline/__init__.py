"""Simulated sessions in virtual time."""
