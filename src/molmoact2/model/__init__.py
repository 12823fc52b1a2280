"""The network, torch only: config, inputs, towers, action expert, flow, decoding, weights."""
