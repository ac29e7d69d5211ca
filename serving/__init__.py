"""The server: live recommendations from a signed release, durable event intake, decision records.

Belongs here: everything on the request path and what feeds it (`engine`, `releases`, `inbox`,
`profiles`, `routes`, `pages`). Does not belong here: training, the lake, orchestration; and no torch,
mlflow, feast, dagster or pandas anywhere in this room.
"""
