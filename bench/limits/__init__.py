"""What the machine allows: C programs that do the same work with nothing round it, compiled when they are asked for.

They are rows of a result like any peer, named ``c-...``, so that they are measured in turn with what is compared.
"""
