"""Where files lie: in folders of this machine, or in buckets of an object store.

`places` reads what the user wrote. `bucket` has the paths in buckets, `requests` their requests and
errors. Everything else asks `files`, which treats both alike.
"""

MARKER = "commit_success.txt"  # by which Orbax makes a checkpoint valid that it cannot rename
