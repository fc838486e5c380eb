"""Sample data of the embedded cloud: flights, shop events, users. Deterministic: the same bytes every time.

What belongs here: making the data and putting it where production finds its own. What does not: moving it on.
"""
