"""Choosing what is worth learning from: gates for datasets and episodes, spans without idle time, and writing them."""
