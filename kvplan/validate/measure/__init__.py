"""What is there and what it takes: caches allocated, filled and read, steps run, memory and time of both.

Knows no formula of the plan: what it says of a case it has done. Every job runs in a process of its own and returns a
reading, a dict that goes into JSON.
"""
