"""How fast molmoact2 is on this machine: `make bench`, or one table by itself with `python -m benchmarks.<name>`."""
