"""Embodied-reasoning data: scenes with exact answers."""
