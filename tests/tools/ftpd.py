"""ftpd.py ROOT CERTIFICATE: a server of the files of ROOT on the loopback interface. Prints three ports: without TLS,
with TLS that clients ask for, and with TLS from the first byte on; the first alone where CERTIFICATE is empty. Ends with
its input."""

import logging
import os
import sys
import threading

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.ioloop import IOLoop
from pyftpdlib.servers import FTPServer

root, certificate_file = sys.argv[1:]
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
users = DummyAuthorizer()
users.add_user("joe", "s3cret", root)
users.add_anonymous(root)


class Plain(FTPHandler):
    authorizer = users


class Explicit(TLS_FTPHandler):
    authorizer = users
    certfile = certificate_file
    tls_control_required = True
    tls_data_required = True


class Implicit(Explicit):
    def handle(self):
        self.secure_connection(self.get_ssl_context())
        super().handle()

    def handle_ssl_established(self):
        pass


loop = IOLoop()
handlers = (Plain, Explicit, Implicit) if certificate_file else (Plain,)
servers = [FTPServer(("127.0.0.1", 0), handler, ioloop=loop) for handler in handlers]
print(*(server.socket.getsockname()[1] for server in servers), flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
loop.loop()
