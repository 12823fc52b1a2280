"""Episodes and what they say: the loop, benchmarks, recordings of experts, films and reports.

Read `rollout` first: everything else passes it a policy and an observer.
"""
