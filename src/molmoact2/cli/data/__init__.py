"""Commands on datasets: `molmoact2 data ...`."""
