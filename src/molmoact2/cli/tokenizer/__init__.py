"""Commands on action tokenizers: `molmoact2 tokenizer ...`."""
