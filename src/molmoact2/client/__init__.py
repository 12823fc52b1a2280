"""Talk to a policy server from a robot: numpy, msgpack and websockets are all it needs."""
