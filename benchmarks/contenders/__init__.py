"""Who is measured. Each runs in a process of its own, in its own environment, and imports its library only there.

A contender is a function `name(**arguments) -> Calls`, named as `module:function`; `worker` runs one.
"""
