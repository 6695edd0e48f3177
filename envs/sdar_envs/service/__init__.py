"""Any registered environment as a network service, and a client that is used like the pool in one's own process.

The server needs the extra `service` of this package, the client the extra `client`. Nothing is imported here, so that
a client needs no server.
"""
