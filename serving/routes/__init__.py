"""HTTP: what each address takes, gives and refuses.

Belongs here: decoding of requests, status codes, problem details, OpenAPI. Does not belong here: how an
answer is made (`serving/answers.py`, `serving/engine`) or stored (`serving/inbox`, `serving/decisions.py`).
"""
