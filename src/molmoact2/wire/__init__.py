"""What robots and servers say to each other, as bounded, typed bytes: our protocol, and the dialects of others.

Needs numpy, msgpack and pillow only. Nothing that arrives is executed, unpickled, or believed before it is checked.
"""
