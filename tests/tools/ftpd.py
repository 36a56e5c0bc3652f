"""ftpd.py ROOT CERTIFICATE: a server of the files of ROOT on the loopback interface. Prints three ports: without TLS,
with TLS that clients ask for, and with TLS from the first byte on; the first alone where CERTIFICATE is empty. Ends with
its input.

What fails is named by who comes in, with any password:
cut-TIMES-BYTES-HOW: so many transfers end behind so many bytes. HOW is "nice" where TLS ends as it should, "226" and "426"
where it does not and the server then says that, and "gone" where the session ends as well.
busy-TIMES-CODE-VERB: so many of these commands are answered with that."""

import logging
import os
import socket
import sys
import threading

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import DTPHandler, FTPHandler, TLS_DTPHandler, TLS_FTPHandler
from pyftpdlib.ioloop import IOLoop
from pyftpdlib.servers import FTPServer

root, certificate_file = sys.argv[1:]
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
happened = {}


def is_due(session, times):
    """Counts what is to fail, of each port; whether it does this time."""
    key = (type(session), session.username)
    happened[key] = happened.get(key, 0) + 1
    return happened[key] <= int(times)


class Users(DummyAuthorizer):
    def known(self, name):
        return name.startswith(("cut-", "busy-"))

    def validate_authentication(self, name, password, handler):
        if not self.known(name):
            super().validate_authentication(name, password, handler)

    def has_user(self, name):
        return self.known(name) or super().has_user(name)

    def get_home_dir(self, name):
        return root

    def has_perm(self, name, perm, path=None):
        return perm in "elr"

    def get_perms(self, name):
        return "elr"

    def get_msg_login(self, name):
        return "Login successful."

    def get_msg_quit(self, name):
        return "Goodbye."


users = Users()
users.add_user("joe", "s3cret", root)
users.add_anonymous(root)


class Cutting:
    """A transfer that may end too early."""

    limit = None

    def send(self, data):
        user = self.cmd_channel.username
        if self.limit is None:
            self.limit = sys.maxsize
            if user.startswith("cut-"):
                _, times, limit, self.how = user.split("-")
                if is_due(self.cmd_channel, times):
                    self.limit = int(limit)
        left = self.limit - self.tot_bytes_sent
        if left > 0:
            return super().send(data[:left])
        self.cut()
        return 0

    def cut(self):
        if self.how != "nice":
            # Behind the back of TLS.
            with socket.socket(fileno=os.dup(self.socket.fileno())) as plain:
                plain.shutdown(socket.SHUT_RDWR)
        text = "426 Broken off." if self.how == "426" else "226 Transfer complete."
        if self.how == "gone":
            with socket.socket(fileno=os.dup(self.cmd_channel.socket.fileno())) as plain:
                plain.shutdown(socket.SHUT_RDWR)
        else:
            self._resp = (text, logging.info)
        self.close()


class CuttingPlain(Cutting, DTPHandler):
    def use_sendfile(self):
        return False


class CuttingTls(Cutting, TLS_DTPHandler):
    pass


class Busy:
    """A session whose server may be busy."""

    def process_command(self, cmd, *args, **kwargs):
        if self.username.startswith("busy-"):
            _, times, code, verb = self.username.split("-")
            if cmd == verb and is_due(self, times):
                self.respond(code + " Come back later.")
                if code == "421":
                    self.close_when_done()
                return
        super().process_command(cmd, *args, **kwargs)


class Plain(Busy, FTPHandler):
    authorizer = users
    dtp_handler = CuttingPlain


class Explicit(Busy, TLS_FTPHandler):
    authorizer = users
    dtp_handler = CuttingTls
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
