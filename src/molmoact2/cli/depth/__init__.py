"""Commands on depth: `molmoact2 depth ...`."""
