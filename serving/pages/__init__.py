"""Pages for people: the status page and the interface's documentation.

Belongs here: templates, one stylesheet, one small ES module, and what fills them. Does not belong here:
anything from another host, and any state.
"""
