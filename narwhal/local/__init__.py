"""The local stack: Postgres, PostgREST and a gateway with Auth and Storage, on one machine.

For development, demos, tests and a single small team. `narwhal up` runs it (supervisor.py).
"""
