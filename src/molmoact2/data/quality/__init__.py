"""A linter for datasets: rules by family, what they look at, and the report with its grade."""
