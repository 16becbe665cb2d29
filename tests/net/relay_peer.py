"""A next hop that does as it is told: a thread for each connection, blocking sockets, RFC 5321 by hand. Loaded by test_relay.py."""

from __future__ import annotations

import socket
import threading
import time


class Peer:
    """Listens on a free loopback port (or at a path); `script` maps a verb or "RCPT address" to a reply, "hang" or "close"."""

    def __init__(self, script=None, *, path=None, lmtp=False, offers=("PIPELINING", "8BITMIME", "SMTPUTF8"), slow=0.0, port=0):
        self.script = dict(script or {})
        self.messages = []
        self.connections = 0
        self.sessions = []
        self.lmtp = lmtp
        self.offers = offers
        self.slow = slow
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen(50)
            self.port = 0
        else:
            self.listener = socket.create_server(("127.0.0.1", port), backlog=50)
            self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.connections += 1
                self.sessions.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _act(self, connection, what, default):
        """Send the scripted reply; False where the connection is at its end."""
        return self._say(connection, self._scripted(what, default))

    def _scripted(self, what, default):
        action = self.script.get(what, default)
        return action() if callable(action) else action

    def _say(self, connection, action):
        if action == "hang":
            self.stopped.wait(60)
            return False
        if action == "close":
            return False
        connection.sendall(action.encode() + b"\r\n")
        return action

    def _talk(self, connection):
        try:
            with connection:
                self._session(connection, connection.makefile("rb"))
        except OSError:
            pass

    def _session(self, connection, file):
        if not self._act(connection, "CONNECT", "220 peer ESMTP"):
            return
        mail, recipients = None, []
        for line in file:
            verb = line.split(None, 1)[0].upper().decode() if line.split() else ""
            text = line.decode("utf-8", "replace").strip()
            if verb in ("EHLO", "LHLO"):
                hello = "\r\n".join(["250-peer", *(f"250-{offer}" for offer in self.offers), "250 SIZE 100000000"])
                if not self._act(connection, "EHLO", hello):
                    return
            elif verb == "MAIL":
                mail, recipients = text[10:].split(" ")[0], []
                reply = self._act(connection, "MAIL", "250 2.1.0 ok")
                if not reply:
                    return
                mail = mail if reply.startswith("2") else None
            elif verb == "RCPT":
                address = text[8:].split(" ")[0].strip("<>")
                usual = self.script.get("RCPT", "250 2.1.5 ok") if mail is not None else "503 5.5.1 no sender"
                reply = self._act(connection, f"RCPT {address}", usual)
                if not reply:
                    return
                if reply.startswith("2"):
                    recipients.append(address)
            elif verb == "DATA":
                if not recipients:
                    connection.sendall(b"503 5.5.1 no recipients\r\n")
                    continue
                reply = self._act(connection, "DATA", "354 go on")
                if not reply:
                    return
                if not reply.startswith("3"):
                    continue
                if self.script.get("BODY") == "close":
                    file.readline()
                    return
                if self.script.get("BODY") == "hang":
                    self.stopped.wait(60)
                    return
                lines = []
                for body in file:
                    if body == b".\r\n":
                        break
                    lines.append(body[1:] if body.startswith(b".") else body)
                else:
                    return
                if self.slow:
                    time.sleep(self.slow)
                for recipient in recipients if self.lmtp else [""]:
                    reply = self._scripted(f"END {recipient}".strip(), self.script.get("END", "250 2.0.0 taken"))
                    # First it has the message, then it says so: whoever hears it may look at once.
                    if reply.startswith("2"):
                        with self.lock:
                            self.messages.append((mail, [recipient] if self.lmtp else list(recipients), b"".join(lines)))
                    if not self._say(connection, reply):
                        return
            elif verb == "QUIT":
                connection.sendall(b"221 2.0.0 bye\r\n")
                return
            elif verb == "STARTTLS":
                # Says yes, and then knows nothing of TLS.
                self._act(connection, verb, "220 go")
                file.read(5)
                return
            elif verb in ("RSET", "NOOP"):
                if not self._act(connection, verb, "250 2.0.0 ok"):
                    return
            else:
                connection.sendall(b"500 5.5.1 what\r\n")

    def drop_all(self):
        """Close every connection, as a next hop does that restarts."""
        with self.lock:
            for connection in self.sessions:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self.sessions.clear()

    def close(self):
        self.stopped.set()
        self.listener.close()
        self.drop_all()
