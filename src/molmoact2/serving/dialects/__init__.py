"""How clients speak to the server: our own protocol, and those of others. Each turns what it hears into an `Ask`."""
