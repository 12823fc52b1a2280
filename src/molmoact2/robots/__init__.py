"""Arms behind one contract: thin adapters for real ones, a simulated one, one that pretends, and their doctor."""
