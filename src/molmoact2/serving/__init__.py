"""One policy for many robots: the server, what it remembers of each, what it shows and what it writes down."""
