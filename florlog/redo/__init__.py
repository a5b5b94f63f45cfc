"""Executing a plan, in this process or in several, and storing what was found next to the recording.

In comes a request with its plan.  Out comes the answer: values, each with its trust.  Every other process that
florlog starts is started here, by one spawner that speaks one wire format.
"""
