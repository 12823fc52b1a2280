"""The wire formats of other projects' clients, read as strictly as our own.

Written from what those formats are; none of those projects is needed, and none of their code is run.
"""
