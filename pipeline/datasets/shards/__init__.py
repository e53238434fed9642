"""A prepared data set: shards in a folder or bucket that every host of a run reads.

`manifest` says what lies there, `making` writes it, `reading` reads it. `sources/` are the kinds of
data that can be prepared.
"""
