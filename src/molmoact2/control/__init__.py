"""Between a plan and the motors: when each row is due, how plans are joined, what may never be commanded.

Needs numpy only, and knows neither networks nor any particular robot.
"""
