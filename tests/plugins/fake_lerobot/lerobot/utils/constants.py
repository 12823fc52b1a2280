"""Keys of observations."""

OBS_STATE = "observation.state"
ACTION = "action"
