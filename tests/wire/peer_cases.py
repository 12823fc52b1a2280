"""What was in the recorded messages of other projects."""

import numpy as np

IMAGE = np.fromfunction(lambda y, x, c: (7 * y + 3 * x + 50 * c) % 256, (6, 8, 3)).astype(np.uint8)
STATE = np.array([0.5, -1.25, 3.0, 0.0, 1e-3, -7.75, 2.5, 1.0], np.float32)
ACTIONS = np.array([[0.125, -2.0, 3.5], [4.0, 0.0, -0.5]], np.float32)
